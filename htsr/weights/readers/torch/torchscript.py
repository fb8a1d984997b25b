"""List the weights of TorchScript files, which ``torch.jit.save`` wrote, without executing or compiling any of their code.

Such a file is a zip archive: a pickle of the modules, one record of bytes for each storage, and the code of the classes as text.
The pickle is read with classes of this file in place of all that it names; the records are read directly; and the text tells the
number of groups of a convolution and which tensors are buffers.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.readers.torch.records import RecordedTensor, read_record, why_unreadable
from htsr.weights.readers.torch.torchscript_constants import constant_with_role, uses_of_constants
from htsr.weights.roles import LayerRole

KIND = "TorchScript file"
# Classes of torch by the last part of their name, and the roles of their weights.
ROLES = {"Linear": "dense", "Embedding": "embedding", "EmbeddingBag": "embedding", "Bilinear": "bilinear"} | {
    f"Conv{transposed}{n}d": f"conv{'_transpose' * bool(transposed)}{n}d"
    for transposed in ("", "Transpose")
    for n in (1, 2, 3)
}
DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
# In the code of a class: its buffers, and the number of groups as an attribute (scripted) or an argument (traced).
BUFFERS = re.compile(r"__buffers__ = \[([^\]]*)\]")
GROUPS = re.compile(
    r"groups : Final\[int\] = (\d{1,9})\b|_convolution\([^\[]*(?:\[[\d, -]*\], ){3}\w+, \[[\d, -]*\], (\d{1,9}),"
    r"|conv\dd\([^\[]*(?:\[[\d, -]*\], ){3}(\d{1,9})\)"
)
MAX_CODE_BYTES = 2**26


def is_torchscript(entries: Collection[str]) -> bool:
    """Return whether an archive with these entries is a TorchScript file."""
    roots = {name.removesuffix("constants.pkl") for name in entries if name.endswith("constants.pkl")}
    return any(f"{root}data.pkl" in entries for root in roots)


def read_torchscript(path: Path, entries: Mapping[str, zipfile.ZipInfo]) -> Listing:
    """List the tensors of the modules in a TorchScript file, in the order of its pickle."""
    root = next(name.removesuffix("constants.pkl") for name in entries if name.endswith("constants.pkl"))
    with zipfile.ZipFile(path) as archive:
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise InputError(f"{path}: a TorchScript file in big-endian order, which htsr does not read")
        model = _unpickled(path, archive, f"{root}data.pkl")
        code = _Code(archive, f"{root}code/", entries)
        tensors = [
            _stored(path, f"{root}data/", entries, name, value, module, code)
            for name, value, module in _tensors_of(model)
        ]
        tensors += _constants(path, root, entries, archive, code)
    return Listing(str(path), tensors)


def _constants(
    path: Path, root: str, entries: Mapping[str, zipfile.ZipInfo], archive: zipfile.ZipFile, code: "_Code"
) -> list[StoredTensor]:
    """List the constants of the code, which are the weights if the model was frozen."""
    values = _unpickled(path, archive, f"{root}constants.pkl")
    values = values if isinstance(values, tuple | list) else ()
    tensors = {f"c{number}": value for number, value in enumerate(values) if isinstance(value, RecordedTensor)}
    uses = uses_of_constants(code.all()) if tensors else {}
    listed = []
    for name, tensor in tensors.items():
        entry = f"{root}constants/{tensor.record}"
        dtype = str(tensor.dtype).removeprefix("torch.")
        stored = StoredTensor(
            key=f"constants.{name}",
            shape=tensor.shape,
            dtype=dtype,
            read=partial(read_record, path, entry, tensor),
            identity=("constants", tensor.record, tensor.offset, tensor.shape, tensor.strides),
            reason=why_unreadable(tensor, entries.get(entry)),
            # a number or an index is part of the code
            num_params=None if tensor.shape and "float" in dtype else 0,
        )
        listed.append(constant_with_role(stored, uses.get(name, ())))
    return listed


class _Object:
    """An object of any class that a pickle names; it keeps its state and does nothing."""

    kind = ""
    state: Mapping[str, Any] = {}

    def __init__(self, *_: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        if isinstance(state, dict):
            self.state = state


class _Unpickler(pickle.Unpickler):
    """Read a pickle in which every class is replaced by ``_Object`` and every function by one that returns its argument."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or a function."""
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuilt
        if module in ("torch.jit._pickle", "torch._utils", "collections"):
            return _first
        if module == "torch":
            return name
        return type("_Named", (_Object,), {"kind": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        """Return the type and the record of a storage."""
        _, storage, record, *_ = pid
        return DTYPES.get(storage), str(record)


def _unpickled(path: Path, archive: zipfile.ZipFile, entry: str) -> object:
    """Return what a pickle in the archive describes, with stand-ins for its classes."""
    try:
        return _Unpickler(io.BytesIO(archive.read(entry))).load()
    except Exception as err:  # a damaged pickle can raise anything
        raise InputError(
            f"{path}: {entry} in this TorchScript file is damaged ({type(err).__name__}): save it again"
        ) from err


def _first(*arguments: Any) -> Any:
    """Return the first argument, for functions that only mark the type of it."""
    return arguments[0] if arguments else {}


def _rebuilt(storage: Any, offset: int, shape: Any, strides: Any, *_: object) -> RecordedTensor:
    """Return the description of a tensor, in place of ``torch._utils._rebuild_tensor_v2``."""
    dtype, record = storage
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise InputError("a tensor with damaged sizes")
    return RecordedTensor(dtype, record, offset, tuple(shape), tuple(strides))


def _tensors_of(model: object) -> Iterator[tuple[str, RecordedTensor, _Object]]:
    """Yield the name of every tensor in a tree of modules, the tensor, and the module that has it."""
    todo, seen = [("", model)], set()
    while todo:
        path, module = todo.pop()
        if not isinstance(module, _Object) or id(module) in seen:  # a shared module is listed once
            continue
        seen.add(id(module))
        inner = []
        for key, value in module.state.items():
            if isinstance(value, RecordedTensor):
                yield f"{path}{key}", value, module
            elif isinstance(value, _Object):
                inner.append((f"{path}{key}.", value))
        todo += inner[::-1]


class _Code:
    """The code of the classes in an archive, as text."""

    def __init__(self, archive: zipfile.ZipFile, root: str, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive, self._root, self._entries = archive, root, entries
        self._left = MAX_CODE_BYTES
        self._texts: dict[str, str] = {}

    def of(self, kind: str) -> str:
        """Return the code of a class; empty if the archive has none."""
        module, _, name = kind.rpartition(".")
        text = self._text(f"{self._root}{module.replace('.', '/')}.py")
        start = text.find(f"class {name}(Module):")
        return "" if start < 0 else text[start : max(text.find("\nclass ", start + 1), 0) or len(text)]

    def all(self) -> list[str]:
        """Return the code of every class in the archive."""
        return [self._text(entry) for entry in self._entries if entry.startswith(self._root) and entry.endswith(".py")]

    def _text(self, entry: str) -> str:
        if entry not in self._texts:
            size = self._entries[entry].file_size if entry in self._entries else 0
            self._left -= size
            known = 0 < size and self._left >= 0
            self._texts[entry] = self._archive.read(entry).decode(errors="replace") if known else ""
        return self._texts[entry]


def groups_in_code(text: str) -> int | None:
    """Return the number of groups that the code of a convolution says; None if it does not."""
    found = GROUPS.search(text)
    return int(next(filter(None, found.groups()))) if found else None


def _stored(
    path: Path,
    root: str,
    entries: Mapping[str, zipfile.ZipInfo],
    name: str,
    tensor: RecordedTensor,
    module: _Object,
    code: _Code,
) -> StoredTensor:
    """List one tensor of a module, with the role that the class of the module gives it."""
    entry = f"{root}{tensor.record}"
    dtype = str(tensor.dtype).removeprefix("torch.")
    text, own = code.of(module.kind), name.rpartition(".")[2]
    reason = why_unreadable(tensor, entries.get(entry))
    buffers = BUFFERS.search(text)
    if reason is None and buffers is not None and f'"{own}"' in buffers.group(1):
        reason = "a buffer, not a parameter"
    if reason is not None:
        return StoredTensor(name, tensor.shape, dtype, never_read, reason=reason)
    layer_type = ROLES.get(module.kind.rpartition(".")[2]) if own == "weight" else None
    role, note = None if layer_type is None else LayerRole(layer_type), ""
    if layer_type is not None and layer_type.startswith("conv"):
        found = groups_in_code(text)
        groups = found or 1
        if tensor.shape[0] % groups:
            groups = 1
        role = LayerRole(layer_type, groups=groups)
        note = "" if found is not None else "the file does not say into how many groups this convolution is divided"
    return StoredTensor(
        key=name,
        shape=tensor.shape,
        dtype=dtype,
        read=partial(read_record, path, entry, tensor),
        role=role,
        identity=(tensor.record, tensor.offset, tensor.shape, tensor.strides),
        note=note,
    )
