"""List the weights of ``.pt2`` files, which ``torch.export.save`` wrote, without executing or unpickling any of them.

Such a file is a zip archive: for each program, the JSON of its graph and of its weights, and one record of bytes for each weight.
"""

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.readers.json_files import MAX_JSON_BYTES
from htsr.weights.readers.torch.records import RecordedTensor, read_record, why_unreadable
from htsr.weights.roles import LayerRole

WEIGHTS, CONFIG = "data/weights/", "_weights_config.json"
# ScalarType and Layout of torch._export.serde.schema.
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16, 29: torch.float8_e4m3fn, 30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz, 32: torch.float8_e5m2fnuz,
}  # fmt: skip
STRIDED = 7
# Operations of ATen that multiply by their argument ``weight``, and the roles that they give it.
ROLES = {"linear": "dense", "embedding": "embedding", "embedding_bag": "embedding", "bilinear": "bilinear"} | {
    f"conv{transposed}{n}d": f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)
}


def is_exported(entries: Collection[str]) -> bool:
    """Return whether an archive with these entries keeps weights as ``torch.export.save`` does since torch 2.8."""
    return any(WEIGHTS in name and name.endswith(CONFIG) for name in entries)


def read_exported(path: Path, entries: Mapping[str, zipfile.ZipInfo]) -> Listing:
    """List the weights of the programs in an archive, in the order of the archive."""
    configs = [name for name in entries if WEIGHTS in name and name.endswith(CONFIG)]
    tensors = []
    with zipfile.ZipFile(path) as archive:
        for name in configs:
            root, _, program = name.removesuffix(CONFIG).rpartition(WEIGHTS)
            graph = _json(archive, entries, f"{root}models/{program}.json")
            roles = dict(_roles(graph["graph_module"]))
            prefix = f"{program}." if len(configs) > 1 else ""
            for key, payload in _json(archive, entries, name)["config"].items():
                tensors.append(_stored(path, entries, f"{root}{WEIGHTS}", f"{prefix}{key}", payload, roles.get(key)))
    return Listing(str(path), tensors)


def _json(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str) -> Any:
    """Return what an entry of the archive says."""
    if name not in entries or entries[name].file_size > MAX_JSON_BYTES:
        raise ValueError(f"expected {name} of at most {MAX_JSON_BYTES:,} bytes in the archive")
    return json.loads(archive.read(name))


def _stored(
    path: Path,
    entries: Mapping[str, zipfile.ZipInfo],
    folder: str,
    key: str,
    payload: Mapping[str, Any],
    role: LayerRole | None,
) -> StoredTensor:
    """List one weight or buffer."""
    meta = payload["tensor_meta"]
    if payload["use_pickle"] or meta is None or meta["layout"] != STRIDED:
        return StoredTensor(key, (), "", never_read, reason="stored as a pickle or a sparse tensor, which is not read")
    tensor = RecordedTensor(
        dtype=DTYPES.get(meta["dtype"]),
        record=payload["path_name"],
        offset=_number(meta["storage_offset"]),
        shape=tuple(map(_number, meta["sizes"])),
        strides=tuple(map(_number, meta["strides"])),
    )
    entry = f"{folder}{tensor.record}"
    reason = why_unreadable(tensor, entries.get(entry)) or (
        None if payload["is_param"] else "a buffer, not a parameter"
    )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if reason is not None:
        return StoredTensor(key, tensor.shape, dtype, never_read, reason=reason)
    identity = (entry, tensor.offset, tensor.shape, tensor.strides)
    read = partial(read_record, path, entry, tensor)
    return StoredTensor(key, tensor.shape, dtype, read, role=role, identity=identity)


def _number(size: Mapping[str, Any]) -> int:
    """Return a size that is known; raise InputError for one that depends on the input or is damaged."""
    number = size.get("as_int")
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"expected a size of a weight, got {str(size)[:100]}")
    return number


def _roles(module: Mapping[str, Any]) -> Iterator[tuple[str, LayerRole]]:
    """Yield the names of the weights of a graph with the roles that its operations give them."""
    specs = [spec["parameter"] for spec in module["signature"]["input_specs"] if "parameter" in spec]
    names = {spec["arg"]["name"]: spec["parameter_name"] for spec in specs}
    for node in module["graph"]["nodes"]:
        operation = node["target"].removeprefix("torch.ops.aten.").partition(".")[0]
        arguments = {item["name"]: item["arg"] for item in node["inputs"]}
        name = names.get(arguments.get("weight", {}).get("as_tensor", {}).get("name"))
        if name is not None and operation in ROLES:
            yield name, LayerRole(ROLES[operation], groups=arguments.get("groups", {}).get("as_int", 1))
