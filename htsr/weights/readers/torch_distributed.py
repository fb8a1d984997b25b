"""List the weights of a directory that ``torch.distributed.checkpoint`` wrote (also Megatron's ``torch_dist``)."""

import pickle
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.names import clean_names
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.shards import config_beside
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
    files: dict[str, list[tuple[str, int]]] = {}  # for each tensor, the file and the end of each shard
    for index, stored in (metadata.storage_data or {}).items():
        files.setdefault(index.fqn, []).append((stored.relative_path, stored.offset + stored.length))
    tensors = []
    for key, about in metadata.state_dict_metadata.items():
        if model is not None and key not in in_model:
            reason: str | None = BESIDE_MODEL
        else:
            reason = None if isinstance(about, TensorStorageMetadata) else "a pickled object, not a tensor"
        shape: tuple[int, ...] = ()
        dtype = ""
        if isinstance(about, TensorStorageMetadata):
            shape, dtype = tuple(about.size), str(about.properties.dtype).removeprefix("torch.")
            reason = reason or _torn(path, files, key, about)
        name = names[in_model[key]] if key in in_model else plain[key]
        tensors.append(StoredTensor(name, shape, dtype, partial(_read, path, key), longkey=key, reason=reason))
    return Listing(str(path), tensors, config_beside(path))


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


def _torn(path: Path, files: Mapping[str, list[tuple[str, int]]], key: str, about: TensorStorageMetadata) -> str | None:
    """Return why a tensor cannot be assembled; None if its shards exist and cover it."""
    if sum(chunk.sizes.numel() for chunk in about.chunks) != about.size.numel():
        return "its shards do not add up to its shape"
    for file, end in files.get(key, []):
        if Path(file).name != file or not (path / file).is_file():
            return f"its shard {file!r:.80} is not in the directory"
        if end > (path / file).stat().st_size:
            return f"its shard {file!r:.80} is truncated"
    return None


class _Reader(dcp.FileSystemReader):
    """A reader that does not execute the metadata."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the metadata from the safe unpickler."""
        metadata = _metadata(Path(self.path))
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _read(path: Path, key: str, rows: slice | None) -> torch.Tensor:
    """Assemble a tensor from its shards and return it, or some of its rows."""
    reader = _Reader(path)
    about = reader.read_metadata().state_dict_metadata[key]
    assert isinstance(about, TensorStorageMetadata)
    tensor = torch.empty(about.size, dtype=about.properties.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that there is no process group, which is intended
            dcp.load({key: tensor}, storage_reader=reader, no_dist=True)
    except (Exception, dcp.CheckpointException) as err:  # shards are pickles, and a damaged one can raise anything
        raise unreadable_file(path, KIND, err) from err
    return tensor if rows is None else tensor[rows]
