"""Weights of a directory that ``torch.distributed.checkpoint`` wrote (also Megatron's ``torch_dist``)."""

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
from htsr.weights.names import without_common_prefix
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.shards import config_beside
from htsr.weights.state_dicts import MODEL_KEYS

KIND = "directory of torch.distributed.checkpoint"
# Everything that the ``.metadata`` file of a checkpoint may name. It is a pickle, and these only describe tensors.
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
    """List the tensors of a distributed checkpoint; a tensor is put together from its shards when it is read.

    Args:
        path: The directory, with its ``.metadata`` file.

    Returns:
        The tensors, each read in this one process, without a process group.

    Raises:
        InputError: If the metadata is damaged, names more than tensors, or points outside the directory.
    """
    metadata = _metadata(path)
    planned = metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {}
    places = {key: tuple(map(str, planned.get(key, (key,)))) for key in metadata.state_dict_metadata}
    top = {place[0] for place in places.values() if len(place) > 1}
    model = next((name for name in MODEL_KEYS if name in top), None)
    in_model = {key: ".".join(place[1:]) for key, place in places.items() if len(place) > 1 and place[0] == model}
    names = without_common_prefix(list(in_model.values()), "module.")
    plain = without_common_prefix(list(places), "module.")
    files: dict[str, list[tuple[str, int]]] = {}  # of each tensor: where its shards are, and where they end
    for index, stored in (metadata.storage_data or {}).items():
        files.setdefault(index.fqn, []).append((stored.relative_path, stored.offset + stored.length))
    tensors = []
    for key, about in metadata.state_dict_metadata.items():
        if model is not None and key not in in_model:
            reason: str | None = "beside the model, not read"
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
    """Finds the names that describe tensors, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if name in ALLOWED.get(module, ()) or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no description of tensors needs")


def _metadata(path: Path) -> Metadata:
    try:
        with (path / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
    except Exception as err:  # a damaged pickle can make the unpickler stumble in any way
        raise unreadable_file(path / ".metadata", KIND, err) from err
    if not isinstance(metadata, Metadata) or not isinstance(metadata.state_dict_metadata, Mapping):
        raise InputError(f"{path}: expected the metadata of a checkpoint in .metadata, got a {type(metadata).__name__}")
    if not all(isinstance(key, str) for key in metadata.state_dict_metadata):
        raise InputError(f"{path}: expected the names of tensors in .metadata, got keys of other types")
    return metadata


def _torn(path: Path, files: Mapping[str, list[tuple[str, int]]], key: str, about: TensorStorageMetadata) -> str | None:
    """Why a tensor cannot be put together; None if its shards are there and cover it."""
    if sum(chunk.sizes.numel() for chunk in about.chunks) != about.size.numel():
        return "its shards do not add up to its shape"
    for file, end in files.get(key, []):
        if Path(file).name != file or not (path / file).is_file():
            return f"its shard {file!r:.80} is not in the directory"
        if end > (path / file).stat().st_size:
            return f"its shard {file!r:.80} is truncated"
    return None


class _Reader(dcp.FileSystemReader):
    """Reads the metadata without executing it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = _metadata(Path(self.path))
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _read(path: Path, key: str, rows: slice | None) -> torch.Tensor:
    reader = _Reader(path)
    about = reader.read_metadata().state_dict_metadata[key]
    assert isinstance(about, TensorStorageMetadata)
    tensor = torch.empty(about.size, dtype=about.properties.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no process group is on purpose
            dcp.load({key: tensor}, storage_reader=reader, no_dist=True)
    except (
        Exception,
        dcp.CheckpointException,
    ) as err:  # damaged shards are pickles that can make the unpickler stumble in any way
        raise unreadable_file(path, KIND, err) from err
    return tensor if rows is None else tensor[rows]
