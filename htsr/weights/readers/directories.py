"""Tell which checkpoint a directory holds: one model, the modules of a pipeline, or something that must be converted first."""

import posixpath
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.optimizer_state import OPTIMIZER_STATE
from htsr.weights.readers.formats import BY_SUFFIX, SAFETENSORS, TORCH, TORCH_DISTRIBUTED, check_not_foreign
from htsr.weights.readers.json_files import read_json
from htsr.weights.readers.shards import BESIDE, choose_shards, files_with_suffix, sibling_parts

# Files that list the parts of a pipeline, each in a folder of its own: sentence-transformers, diffusers.
PIPELINES = ("modules.json", "model_index.json")
# Files that trainers write beside a model: transformers, Accelerate.
OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
MAX_PARTS = 100
ADAPTER_CONFIG = "adapter_config.json"
ListPath = Callable[[Path], Listing]


def list_directory(path: Path, list_file: ListPath) -> Listing:
    """List the tensors of the checkpoint in a directory; other files of weights are listed, not read."""
    for name in PIPELINES:
        if (path / name).exists():
            return _list_pipeline(path, name, list_file)
    return _list_model(path, list_file)


def _list_model(path: Path, list_file: ListPath) -> Listing:
    """List the tensors of the one model in a directory."""
    _refuse_deepspeed(path)
    for suffix, format_ in (("safetensors", SAFETENSORS), ("bin", TORCH)):
        if suffix == "bin" and (path / ".metadata").is_file():
            return TORCH_DISTRIBUTED.list_tensors(path)
        chosen = choose_shards(path, suffix)
        if chosen is not None:
            listing = format_.list_tensors(path, chosen.files)
            return _with_files(listing, path, {file.name for file in chosen.files})
    alone = [file for file in files_with_suffix(path, *BY_SUFFIX) if file.suffix.lower() != ".bin"]
    if alone and len(alone) == len(sibling_parts(alone[0])):  # one file, or all parts of one
        return list_file(alone[0])
    check_not_foreign(path)
    adapters = sorted(file.parent.name for file in path.glob(f"*/{ADAPTER_CONFIG}"))
    if adapters:
        raise InputError(
            f"{path}: a folder of {len(adapters)} PEFT adapters, and no model: pass one of them, such as "
            f"{path / adapters[0]} (found {', '.join(adapters[:8])}{', ...' if len(adapters) > 8 else ''})"
        )
    names = sorted(entry.name for entry in path.iterdir())
    found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    raise InputError(
        f"{path}: expected *.safetensors, pytorch_model*.bin, a torch.distributed checkpoint, or one checkpoint file "
        f"({', '.join(BY_SUFFIX)}), found {found}"
    )


def _with_files(listing: Listing, path: Path, read: set[str]) -> Listing:
    """Return the listing with a reason for every other file of weights in the directory."""
    names = [file.name for file in files_with_suffix(path, *BY_SUFFIX) if file.name not in read]
    why = dict.fromkeys(OPTIMIZERS, OPTIMIZER_STATE)
    return replace(listing, tensors=[*listing.tensors, *(_unread(name, why.get(name, BESIDE)) for name in names)])


def with_optimizer(listing: Listing, path: Path, list_file: ListPath) -> Listing:
    """Return the listing of a directory with the state of the optimizer that stands in a file of its own."""
    for name in OPTIMIZERS:
        if (path / name).is_file():
            return replace(listing, optimized=list_file(path / name).optimized)
    return listing


def _unread(name: str, reason: str) -> StoredTensor:
    return StoredTensor(name, (), "", never_read, reason=f"a file: {reason}", num_params=0)


def _list_pipeline(path: Path, name: str, list_file: ListPath) -> Listing:
    """List the parts of a pipeline side by side; a part in a folder of its own has the folder's name before its tensors."""
    tensors: list[StoredTensor] = []
    config: dict[str, object] = {}
    metadata: dict[str, str] = {}
    for folder in _parts(path, name):
        part = path / folder
        if not part.is_dir() or not files_with_suffix(part, *BY_SUFFIX):
            continue  # a tokenizer, a scheduler, a pooling layer: no weights
        # a part is a model: a file of modules inside of it could name itself, through a link for ever
        own = _list_root(path, list_file) if not folder else _list_model(part, list_file)
        config = config or dict(own.config)
        metadata = {**own.metadata, **metadata}
        prefix = f"{folder.replace('/', '.')}." if folder else ""
        tensors += [
            replace(
                tensor,
                key=f"{prefix}{tensor.key}",
                longkey=f"{prefix}{tensor.longkey or tensor.key}",
                config=own.config if tensor.config is None else tensor.config,
            )
            for tensor in own.tensors
        ]
    if not tensors:
        raise InputError(f"{path}: {name} names no folder with a file of weights ({', '.join(BY_SUFFIX)})")
    return Listing(str(path), tensors, config, metadata=metadata)


def _list_root(path: Path, list_file: ListPath) -> Listing:
    """List the checkpoint that stands beside a file of modules, not in a folder of its own."""
    for suffix, format_ in (("safetensors", SAFETENSORS), ("bin", TORCH)):
        if chosen := choose_shards(path, suffix):
            return _with_files(format_.list_tensors(path, chosen.files), path, {file.name for file in chosen.files})
    return list_file(files_with_suffix(path, *BY_SUFFIX)[0])


def _parts(path: Path, name: str) -> list[str]:
    """Return the folders of the parts that a file of modules names, the directory itself as an empty text."""
    if name == "modules.json":
        found = read_json(path / name, of=list)
        folders = [str(part.get("path", "")) for part in found if isinstance(part, dict)]
    else:
        folders = [
            key
            for key, value in read_json(path / name).items()
            if not key.startswith("_") and isinstance(value, list) and (path / key).is_dir()
        ]
    for folder in folders:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise InputError(f"{path / name}: expected folders inside the directory, got {folder!r:.100}")
    if len(folders) > MAX_PARTS:
        raise InputError(f"{path / name}: expected at most {MAX_PARTS} parts, got {len(folders):,}")
    plain = map(posixpath.normpath, folders)  # one folder has many spellings: a, ./a, a/.
    return list(dict.fromkeys("" if folder == "." else folder for folder in plain))


def _refuse_deepspeed(path: Path) -> None:
    """Refuse the directory of a training with DeepSpeed's ZeRO, which spreads each weight over files of all ranks."""
    steps = [entry for entry in [path, *path.glob("global_step*")] if entry.is_dir()]
    if any(next(step.glob("*zero_pp_rank_*_optim_states.pt"), None) for step in steps):
        raise InputError(
            f"{path}: a checkpoint of DeepSpeed's ZeRO, whose weights are spread over the files of all ranks: consolidate it "
            f"with `python zero_to_fp32.py {path} OUTPUT` (DeepSpeed saves the script beside it) and audit OUTPUT"
        )
