"""List the weights of a directory that ``torch.distributed.checkpoint`` wrote (also Megatron's ``torch_dist``).

The metadata is unpickled once, to list the tensors. What is read later is described by plain numbers: which bytes of which file
are which part of a tensor. Each part is a file of ``torch.save`` inside the shard.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from htsr.errors import InputError
from htsr.weights.inventory import Listing, OptimizerParameter, StoredTensor, never_read
from htsr.weights.names import clean_names
from htsr.weights.optimizer_state import OPTIMIZER_STATE
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.json_files import with_config
from htsr.weights.state_dicts import BESIDE_MODEL, MODEL_KEYS

KIND = "directory of torch.distributed.checkpoint"
# The ``.metadata`` file of a checkpoint is a pickle. These are all the names it may import; they only describe tensors.
ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.planner": {"_Checkpointable"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath", "WindowsPath"},
}  # fmt: skip
# Names of the tensors of an optimizer's state: ``optimizer.state.layers.0.weight.exp_avg``, ``optim.adam.state.3.exp_avg``.
OF_AN_OPTIMIZER = re.compile(
    r"(?P<place>(optim\w*|opt_state)\.(\w+\.)*?state)\.(?P<parameter>.+)\.(?P<kind>[^.]+)", re.DOTALL
)
# Opcodes of a pickled tensor. None of them fills a dict, a set or a list, so unpickling takes a time in proportion to the bytes.
OF_A_TENSOR = {
    "PROTO", "FRAME", "GLOBAL", "STACK_GLOBAL", "MARK", "STOP", "REDUCE", "BINPERSID", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_TUPLE", "NEWFALSE", "NEWTRUE", "NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE",
}  # fmt: skip
# Places between the edges of shards along all dimensions; a checkpoint of 1,024 ranks has some thousand.
MAX_CELLS = 10**6


@dataclass(frozen=True)
class Shard:
    """A box of a tensor: where it begins, its shape, and the bytes of a file that hold it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int


def read_torch_distributed(path: Path) -> Listing:
    """List the tensors of a distributed checkpoint; reading one assembles its shards, without a process group."""
    metadata = _metadata(path)
    planned = metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {}
    places = {key: tuple(map(str, planned.get(key, (key,)))) for key in metadata.state_dict_metadata}
    top = {place[0] for place in places.values() if len(place) > 1}
    model = next((name for name in MODEL_KEYS if name in top), None)
    in_model = {key: ".".join(place[1:]) for key, place in places.items() if len(place) > 1 and place[0] == model}
    names = clean_names(list(in_model.values()))
    plain = clean_names(list(places))
    stored = {(index.fqn, tuple(index.offset or ())): info for index, info in (metadata.storage_data or {}).items()}
    tensors = []
    states: dict[tuple[str, str], dict[str, StoredTensor]] = {}
    for key, about in metadata.state_dict_metadata.items():
        name = names[in_model[key]] if key in in_model else plain[key]
        if not isinstance(about, TensorStorageMetadata):
            why = BESIDE_MODEL if model is not None and key not in in_model else "a pickled object, not a tensor"
            tensors.append(StoredTensor(name, (), "", never_read, longkey=key, reason=why, num_params=0))
            continue
        shape, dtype = tuple(map(int, about.size)), about.properties.dtype
        shards = _shards(path, key, about, stored)
        read = never_read if isinstance(shards, str) else Assembled(shape, dtype, shards)
        reason = shards if isinstance(shards, str) else None
        listed = StoredTensor(name, shape, str(dtype).removeprefix("torch."), read, longkey=key, reason=reason)
        state = OF_AN_OPTIMIZER.fullmatch(".".join(places[key])) if key not in in_model else None
        if state is not None:
            if shape:
                states.setdefault((state["place"], state["parameter"]), {})[state["kind"]] = listed
            listed = replace(listed, reason=OPTIMIZER_STATE, num_params=0)
        elif model is not None and key not in in_model:
            listed = replace(listed, reason=BESIDE_MODEL)
        tensors.append(listed)
    return with_config(Listing(str(path), tensors, optimized=_optimized(states)), path)


def _optimized(states: Mapping[tuple[str, str], Mapping[str, StoredTensor]]) -> list[OptimizerParameter]:
    """Return the parameters of optimizers; one whose name is a number has none, and its group is not recorded."""
    return [
        OptimizerParameter(f"{place}.{parameter}", None, kept, name="" if parameter.isdecimal() else parameter)
        for (place, parameter), kept in states.items()
    ]


@dataclass(frozen=True)
class Assembled:
    """Reads a tensor, or some of its rows, from the shards that cover it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    shards: tuple[Shard, ...]

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return the tensor, or these rows of it."""
        first, last = (0, self.shape[0] if self.shape else 1) if rows is None else (rows.start, rows.stop)
        shape = (last - first, *self.shape[1:]) if self.shape else ()
        missing = math.nan if self.dtype.is_floating_point else 0
        whole = torch.full(shape, missing, dtype=torch.float32).to(self.dtype)
        for shard in self.shards:
            if not self.shape:
                return _piece(shard, self.dtype)
            low, high = max(first, shard.offsets[0]), min(last, shard.offsets[0] + shard.sizes[0])
            if low < high:
                others = tuple(slice(o, o + s) for o, s in zip(shard.offsets[1:], shard.sizes[1:], strict=True))
                piece = _piece(shard, self.dtype)[low - shard.offsets[0] : high - shard.offsets[0]]
                whole[(slice(low - first, high - first), *others)] = piece
        return whole


class _Unpickler(pickle.Unpickler):
    """An unpickler that finds only the names that describe tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the named object if it describes tensors."""
        if name in ALLOWED.get(module, ()) or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it imports {module}.{name}, which a description of tensors never needs")


def _metadata(path: Path) -> Metadata:
    """Return the metadata of a checkpoint, without executing any code from the file."""
    try:
        with (path / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
    except Exception as err:  # a damaged pickle can raise anything
        raise unreadable_file(path / ".metadata", KIND, err) from err
    if not isinstance(metadata, Metadata) or not isinstance(metadata.state_dict_metadata, Mapping):
        raise InputError(f"{path}: expected the metadata of a checkpoint in .metadata, got a {type(metadata).__name__}")
    if not all(isinstance(key, str) for key in metadata.state_dict_metadata):
        raise InputError(f"{path}: expected tensor names in .metadata, got keys that are not strings")
    return metadata


def _shards(
    path: Path, key: str, about: TensorStorageMetadata, stored: Mapping[tuple[str, tuple[int, ...]], Any]
) -> tuple[Shard, ...] | str:
    """Return the shards of a tensor, or why they do not make it up."""
    if not isinstance(about.properties.dtype, torch.dtype):
        return "its type is not one of torch's"
    shards = []
    for chunk in about.chunks:
        offsets, sizes = tuple(map(int, chunk.offsets)), tuple(map(int, chunk.sizes))
        info = stored.get((key, offsets)) or (stored.get((key, ())) if not any(offsets) else None)
        if info is None:
            return "its metadata does not say where a shard is"
        if getattr(info, "transform_descriptors", None):
            return "its shards are compressed by an extension of torch: load it with torch and save it without"
        name, start, length = info.relative_path, int(info.offset), int(info.length)
        file = path / str(name)
        if not isinstance(name, str) or Path(name).name != name or not file.is_file() or _leads_out(file):
            return f"its shard {str(name)!r:.80} is not in the directory"
        if start < 0 or length < 0 or start + length > file.stat().st_size:
            return f"its shard {name!r:.80} is truncated"
        if math.prod(sizes) * about.properties.dtype.itemsize > length:
            return f"its shard {name!r:.80} holds fewer bytes than its shape needs"
        if math.prod(sizes):
            shards.append(Shard(offsets, sizes, file, start, length))
    return tuple(shards) if _cover_once(tuple(map(int, about.size)), shards) else "its shards do not cover its shape"


def _leads_out(file: Path) -> bool:
    """Return whether a link leads to a file elsewhere; the cache of huggingface_hub links to its own ``blobs``."""
    if not file.is_symlink():
        return False
    home = file.parent.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    return not file.resolve().is_relative_to(cache)


def _cover_once(shape: tuple[int, ...], shards: Sequence[Shard]) -> bool:
    """Return whether the shards lie within the shape and cover each of its elements exactly once."""
    if any(len(shard.offsets) != len(shape) or len(shard.sizes) != len(shape) for shard in shards):
        return False
    if sum(math.prod(shard.sizes) for shard in shards) != math.prod(shape):
        return False
    ends = [[(o, o + s) for o, s in zip(shard.offsets, shard.sizes, strict=True)] for shard in shards]
    if any(low < 0 or high > side for box in ends for (low, high), side in zip(box, shape, strict=True)):
        return False
    edges = [sorted({edge for box in ends for edge in box[dim]}) for dim in range(len(shape))]
    if math.prod(map(len, edges)) > MAX_CELLS:
        return False
    place = [{edge: i for i, edge in enumerate(line)} for line in edges]
    count = np.zeros([len(line) for line in edges], dtype=np.int32)
    for box in ends:  # with the right number of elements, boxes that do not overlap cover everything
        count[tuple(slice(place[dim][low], place[dim][high]) for dim, (low, high) in enumerate(box))] += 1
    return bool((count <= 1).all())


def _piece(shard: Shard, dtype: torch.dtype) -> torch.Tensor:
    """Return the tensor that one shard holds."""
    with shard.file.open("rb") as file:
        file.seek(shard.start)
        content = io.BytesIO(file.read(shard.length))
    with zipfile.ZipFile(content) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError(f"a shard in {shard.file.name} is compressed, which torch.save never does")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                opcodes = {opcode.name for opcode, _, _ in pickletools.genops(archive.read(entry))}
                if not opcodes <= OF_A_TENSOR:
                    raise ValueError(f"a shard in {shard.file.name} holds more than a tensor")
    content.seek(0)
    tensor = torch.load(content, map_location="cpu", weights_only=True)
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shard.sizes or tensor.dtype != dtype:
        raise ValueError(
            f"a shard in {shard.file.name} is not the {dtype} tensor of shape {shard.sizes} that is described"
        )
    return tensor.detach()
