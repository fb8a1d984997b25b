"""Tell which checkpoint a directory holds: one model, the modules of a pipeline, or something that must be converted first."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.optimizer_state import OPTIMIZER_STATE
from htsr.weights.readers.formats import BY_SUFFIX, SAFETENSORS, TORCH, TORCH_DISTRIBUTED, Format, check_not_foreign
from htsr.weights.readers.json_files import read_json
from htsr.weights.readers.shards import BESIDE, Chosen, choose_shards, files_with_suffix, sibling_parts

# Files that list the parts of a pipeline, each in a folder of its own: sentence-transformers, diffusers.
PIPELINES = ("modules.json", "model_index.json")
# Files that trainers write beside a model: transformers, Accelerate.
OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
MAX_PARTS = 100
# How far down, and in how many folders, a directory without a checkpoint is searched for some to name.
MAX_DEPTH_BELOW, MAX_FOLDERS_BELOW = 3, 1000
# Classes of parts that have no weights.
WEIGHTLESS = re.compile(
    r"(^|\.)(Pooling|SpladePooling|TokenPooling|Normalize|Dropout|BoW|MultiVectorMask|LogitScore)$"
    r"|(Scheduler|Tokenizer|TokenizerFast|Processor|Extractor)$"
)
# Files in which a router of sentence-transformers names its modules.
ROUTERS = ("router_config.json", "config.json")
# The share of one rank in a model of Meta or of Megatron, and in DeepSpeed's ZeRO.
CUT_FILE, CUT_FOLDER = re.compile(r"consolidated\.\d+\.pth"), re.compile(r"mp_rank_\d+(_\d+)*")
ZERO_FILE = re.compile(r"zero_pp_rank_\d+")
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
    for suffix, format_ in (("safetensors", SAFETENSORS), ("bin", TORCH)):
        if suffix == "bin" and (path / ".metadata").is_file():
            return TORCH_DISTRIBUTED.list_tensors(path)
        chosen = choose_shards(path, suffix)
        if chosen is not None:
            return _list_chosen(path, format_, chosen)
    _refuse_deepspeed(path)
    alone = [file for file in files_with_suffix(path, *BY_SUFFIX) if file.suffix.lower() != ".bin"]
    if alone and len(alone) == len(sibling_parts(alone[0])):  # one file, or all parts of one
        return list_file(alone[0])
    if alone and parts_of_one(alone[0]) > 1:
        raise InputError(
            f"{path}: {len(alone)} parts over which each weight of one model is cut: convert the model to safetensors with the "
            "script that transformers has for it, and pass the result"
        )
    check_not_foreign(path)
    adapters = sorted(file.parent.name for file in path.glob(f"*/{ADAPTER_CONFIG}"))
    if adapters:
        raise InputError(
            f"{path}: a folder of {len(adapters)} PEFT adapters, and no model: pass one of them, such as "
            f"{path / adapters[0]} (found {', '.join(adapters[:8])}{', ...' if len(adapters) > 8 else ''})"
        )
    if (path / "run.json").is_file() and (path / "captures").is_dir():
        raise InputError(
            f"{path}: expected a model, got the run of a Monitor: open it with htsr.History({str(path)!r})"
        )
    if below := _checkpoints_below(path):
        raise InputError(
            f"{path}: no checkpoint here, but there are some below: pass one of {', '.join(below[:8])}"
            f"{', ...' if len(below) > 8 else ''}"
        )
    names = sorted(entry.name for entry in path.iterdir())
    found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    raise InputError(
        f"{path}: expected *.safetensors, pytorch_model*.bin, a torch.distributed checkpoint, or one checkpoint file "
        f"({', '.join(BY_SUFFIX)}), found {found}"
    )


def _list_chosen(path: Path, format_: Format, chosen: Chosen) -> Listing:
    """List the shards of a checkpoint, with a reason for all that is lost or stored beside them."""
    listing = format_.list_tensors(path, chosen.files)
    lost = sorted(chosen.tensors - {stored.longkey or stored.key for stored in listing.tensors})
    reason = "the index names it, but no shard holds it"
    tensors = [StoredTensor(name, (), "", never_read, reason=reason, num_params=0) for name in lost]
    listing = replace(listing, tensors=[*listing.tensors, *tensors])
    return with_other_files(listing, path, {file.name for file in chosen.files})


def _checkpoints_below(path: Path) -> list[str]:
    """Return the folders below a directory that hold files of weights."""
    found, todo = [], [(path, 0)]
    for folder, depth in todo:
        if folder != path and (files_with_suffix(folder, *BY_SUFFIX) or (folder / ".metadata").is_file()):
            found.append(str(folder.relative_to(path)))
        elif depth < MAX_DEPTH_BELOW:
            inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
            todo += [(entry, depth + 1) for entry in inner[:MAX_PARTS] if len(todo) < MAX_FOLDERS_BELOW]
    return found


def parts_of_one(path: Path) -> int:
    """Return how many files each weight of the model in this file is cut over, by the name of the file or its folder."""
    if CUT_FILE.fullmatch(path.name):
        return sum(CUT_FILE.fullmatch(other.name) is not None for other in path.parent.iterdir())
    if CUT_FOLDER.fullmatch(path.parent.name):
        return sum(CUT_FOLDER.fullmatch(other.name) is not None for other in path.parent.parent.iterdir())
    return 1


def with_other_files(listing: Listing, path: Path, read: set[str]) -> Listing:
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
    weightless: list[StoredTensor] = []
    parts = _parts(path, name)
    for folder, class_name in parts.items():
        part = path / folder
        if not part.is_dir() or not files_with_suffix(part, *BY_SUFFIX):
            if not WEIGHTLESS.search(class_name):  # it was not fetched
                reason = f"a part that {name} names: no file of weights is there"
                weightless.append(StoredTensor(folder, (), "", never_read, reason=reason, num_params=0))
            continue
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
    listing = Listing(str(path), [*tensors, *weightless], config, metadata=metadata)
    return listing if "" in parts else with_other_files(listing, path, set())


def _list_root(path: Path, list_file: ListPath) -> Listing:
    """List the checkpoint that stands beside a file of modules, not in a folder of its own."""
    for suffix, format_ in (("safetensors", SAFETENSORS), ("bin", TORCH)):
        if chosen := choose_shards(path, suffix):
            return _list_chosen(path, format_, chosen)
    return list_file(files_with_suffix(path, *BY_SUFFIX)[0])


def _parts(path: Path, name: str) -> dict[str, str]:
    """Return the parts that a file of modules names: the folder of each, empty for the directory itself, and its class."""
    if name == "modules.json":
        found = read_json(path / name, of=list)
        modules = {str(part.get("path", "")): part.get("type") for part in found if isinstance(part, dict)}
        folders = {
            key: kind
            for folder in modules
            for key, kind in (_routes(path, folder) or {folder: modules[folder]}).items()
        }
    else:
        folders = {
            key: value[-1]
            for key, value in read_json(path / name).items()
            if not key.startswith("_") and isinstance(value, list) and any(value)
        }
    for folder in folders:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise InputError(f"{path / name}: expected folders inside the directory, got {folder!r:.100}")
    if len(folders) > MAX_PARTS:
        raise InputError(f"{path / name}: expected at most {MAX_PARTS} parts, got {len(folders):,}")
    plain = {posixpath.normpath(folder): str(kind) for folder, kind in folders.items()}  # a, ./a and a/ are one folder
    return {"" if folder == "." else folder: kind for folder, kind in plain.items()}


def _routes(path: Path, folder: str) -> dict[str, object]:
    """Return folder and class of the modules among which a router of sentence-transformers chooses; empty if there is none."""
    for name in ROUTERS:
        if not (Path(folder).is_absolute() or ".." in Path(folder).parts) and (path / folder / name).is_file():
            types = read_json(path / folder / name).get("types")
            if isinstance(types, dict):
                return {f"{folder}/{inner}".lstrip("/"): kind for inner, kind in types.items()}
    return {}


def refuse_zero_file(path: Path) -> None:
    """Refuse a file in which one rank of DeepSpeed's ZeRO keeps its share of all weights."""
    if ZERO_FILE.search(path.name):
        raise InputError(_zero(path, path.parent))


def _refuse_deepspeed(path: Path) -> None:
    """Refuse the directory of a training with DeepSpeed's ZeRO, which spreads each weight over files of all ranks."""
    steps = [entry for entry in [path, *path.glob("global_step*")] if entry.is_dir()]
    if any(next(step.glob("*zero_pp_rank_*_optim_states.pt"), None) for step in steps):
        raise InputError(_zero(path, path))


def _zero(path: Path, folder: Path) -> str:
    return (
        f"{path}: a checkpoint of DeepSpeed's ZeRO, whose weights are spread over the files of all ranks: consolidate it "
        f"with `python zero_to_fp32.py {folder} OUTPUT` (DeepSpeed saves the script beside it) and audit OUTPUT"
    )
