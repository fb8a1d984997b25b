"""Fetch a checkpoint from the Hugging Face Hub with ``huggingface_hub``, into its cache and with its tokens."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from htsr.errors import InputError
from htsr.weights.readers.formats import BY_SUFFIX
from htsr.weights.readers.optional import import_optional
from htsr.weights.readers.remote import wanted

SCHEME = "hf://"
# fsspec opens these; a model has no such prefix.
OTHER_KINDS = ("datasets/", "spaces/", "buckets/")
NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[^/@]+))?")
ADDRESS = re.compile(rf"{NAME.pattern}(/(?P<inside>.+?))?/*")
# Where a repository has the shards of a whole model under their usual names, other files of weights are copies of it.
USUAL = re.compile(r"(model|diffusion_pytorch_model|adapter_model)(-\d+-of-\d+)?\.safetensors")
PART = re.compile(r"-\d+-of-\d+(?=\.)")
# Files that list parts of a pipeline in folders of their own.
PIPELINES = ("modules.json", "model_index.json")


def is_hub_address(source: object) -> TypeGuard[str]:
    """Return whether a source is the address of a model on the hub: ``hf://org/name``."""
    return (
        isinstance(source, str)
        and source.startswith(SCHEME)
        and not source.removeprefix(SCHEME).startswith(OTHER_KINDS)
    )


def address_on_hub(path: str) -> str | None:
    """Return the address on the hub of what may be the name of a model, ``org/name@revision``; None for other texts."""
    if not NAME.fullmatch(path) or PurePosixPath(path).suffix.lower() in BY_SUFFIX:
        return None
    return f"{SCHEME}{path}"


def path_or_address(path: str) -> str:
    """Return a path as it is if it exists, or a folder that it would be in does; otherwise its address on the hub."""
    if Path(path).exists() or Path(path).parent.exists():
        return path
    return address_on_hub(path) or path


def fetch_from_hub(address: str) -> tuple[Path, str]:
    """Return the path of a checkpoint in the cache of ``huggingface_hub``, after fetching what is missing, and its commit."""
    found = ADDRESS.fullmatch(address.removeprefix(SCHEME))
    if found is None or ".." in PurePosixPath(found["inside"] or "").parts:
        raise InputError(f"{address}: expected {SCHEME}org/name, {SCHEME}org/name@revision, or a file or folder in one")
    hub = import_optional("huggingface_hub", "hub", address)
    errors = import_optional("huggingface_hub.errors", "hub", address)
    repo, revision, inside = found["repo"], found["revision"], found["inside"] or ""
    try:
        names: Sequence[str] = hub.HfApi().list_repo_files(repo, revision=revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as err:
        raise InputError(f"{address}: {_why(errors, err)}") from err
    except Exception as err:  # no network, offline mode, a server that fails: the cache may hold the model
        return _inside(_cached(hub, address, repo, revision, err), inside, address)
    patterns = [re.sub(r"([*?[])", r"[\1]", name) for name in _wanted_files(address, names, inside)]
    try:
        folder = hub.snapshot_download(repo, revision=revision, allow_patterns=patterns)
    except Exception as err:  # the hub and its network fail in many ways
        raise InputError(f"{address}: {_why(errors, err)}") from err
    return _inside(Path(folder), inside, address)


def _cached(hub: Any, address: str, repo: str, revision: str | None, reason: Exception) -> Path:
    """Return the folder of a model in the cache; raise InputError with the reason why it could not be fetched."""
    try:
        # No pattern, no file that must be there: the reader says what is missing.
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=[], local_files_only=True))
    except Exception as err:  # the cache may be damaged, too
        raise InputError(
            f"{address}: cannot be fetched ({_said(reason)}) and is not in the cache of huggingface_hub; go online, or pass "
            "a local path"
        ) from err


def _inside(folder: Path, inside: str, address: str) -> tuple[Path, str]:
    """Return a path in the folder of a commit, and the commit, after which the library names the folder."""
    if not (folder / inside).exists():
        raise FileNotFoundError(f"{address}: no such file or folder in the cache of huggingface_hub")
    return folder / inside, folder.name


def _wanted_files(address: str, names: Sequence[str], inside: str) -> list[str]:
    """Return the files of a repository that belong to the checkpoint at an address."""
    if inside in names:
        split = PART.sub("-*-of-*", re.sub(r"([*?[])", r"[\1]", inside))
        beside = str(PurePosixPath(inside).parent / "config.json")
        return [name for name in names if fnmatch.fnmatchcase(name, split) or name == beside]
    folder = f"{inside}/" if inside else ""
    here = {name.removeprefix(folder): name for name in names if name.startswith(folder)}
    if not here:
        raise FileNotFoundError(f"{address}: no such file or folder in the repository")
    folders: dict[str, list[str]] = {}
    for name in here:
        folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    own = folders.get(".", [])
    listing = [name for name in PIPELINES if name in own]
    if not listing:
        return [here[name] for name in _of_one_folder(address, own)]
    chosen = [here[name] for name in listing]
    for inner, files in folders.items():
        if any(PurePosixPath(name).suffix.lower() in BY_SUFFIX for name in files) and inner.count("/") == 0:
            chosen += [here[name] for name in _of_one_folder(f"{address}/{inner}", files)]
    return chosen


def _of_one_folder(address: str, names: Sequence[str]) -> list[str]:
    """Return the files of the checkpoint in one folder: safetensors before the pickles of torch, and no other copies."""
    by_base = {PurePosixPath(name).name: name for name in names}
    chosen = wanted(address, list(by_base))
    weights = [name for name in chosen if PurePosixPath(name).suffix.lower() in BY_SUFFIX]
    usual = [name for name in weights if USUAL.fullmatch(name)]
    if usual:
        chosen = [name for name in chosen if name not in weights or name in usual]
    elif not any(name.endswith((".bin", ".safetensors")) for name in weights):
        several = sorted({PART.sub("", name) for name in weights})
        if len(several) > 1:
            raise InputError(
                f"{address}: holds several checkpoints ({', '.join(several[:5])}{', ...' if len(several) > 5 else ''}); "
                f"name one: {address}/{sorted(weights)[0]}"
            )
    return [by_base[name] for name in chosen]


def _why(errors: Any, err: Exception) -> str:
    """Return why the hub did not give a model, and what to do."""
    if isinstance(err, errors.GatedRepoError):
        return "the repository is gated: ask for access on its page and log in with `hf auth login`"
    if isinstance(err, errors.RepositoryNotFoundError):
        return "the hub has no such repository, or it is private: check the name, or log in with `hf auth login`"
    if isinstance(err, errors.RevisionNotFoundError):
        return "the repository has no such revision: check what stands after the @"
    return f"cannot be fetched ({_said(err)})"


def _said(err: Exception) -> str:
    return " ".join(f"{type(err).__name__}: {err}".split())[:300]
