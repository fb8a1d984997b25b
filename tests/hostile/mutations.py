"""Changes that turn a valid checkpoint into a hostile one, each drawn from a seeded ``random.Random``."""

import contextlib
import io
import json
import os
import pickle
import pickletools
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTSIDE = "planted.bin"  # stands beside the folder of every input
TEXTS = ["", "x" * 5000, "9" * 5000, "\ud800", "\x1b[31mred\x1b]0;title\x07", "a\r\nb\0c", "\u202etxt", "=cmd()", "$\\frac{$",
         f"../{OUTSIDE}", f"../../{OUTSIDE}", "/etc/passwd", "(a+)+b", "(", "weight", "None"]  # fmt: skip
NUMBERS = [0, -1, 1, 2, 3, 7, 255, 2**16, 2**31, 2**63, 10**400, -(2**63), 0.5, 1e308, 1e999, float("nan")]
VALUES = [None, True, [], {}, [1], {"a": 1}, [[[]]], *TEXTS, *NUMBERS]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value] if depth % 2 else {"a": value}
    return value


def mutate(folder: Path, source: Path, draw: random.Random) -> str:
    """Change one file of a checkpoint, and say how.

    Args:
        folder: A copy of the checkpoint.
        source: What of it is opened.
        draw: The source of all choices.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:  # an earlier change took the only one away
        return "no file is left"
    file = draw.choice(files)
    kinds: list[Callable[[Path, random.Random], str]] = [damage_bytes]
    if draw.random() < 0.05:
        kinds = [replace_by_something_else]
    elif file.suffix == ".json":
        kinds += [change_json] * 4
    elif file.suffix == ".safetensors":
        kinds += [change_safetensors] * 4
    elif file.name == ".metadata":
        kinds += [change_metadata] * 6
    elif file.suffix in (".onnx",):
        kinds += [change_onnx] * 4
    elif file.suffix == ".h5":
        kinds += [change_hdf5] * 4
    elif is_zip(file):
        kinds += [change_zip] * 4
    elif file.suffix == ".pth":
        kinds += [change_pickles] * 2
    how = draw.choice(kinds)
    try:
        return f"{how.__name__} {file.relative_to(folder)}: {how(file, draw)}"
    except Exception:  # an earlier change left nothing that the format's own library could open
        return f"damage_bytes {file.relative_to(folder)}: {damage_bytes(file, draw) if file.is_file() else 'none'}"


def is_zip(file: Path) -> bool:
    """Whether a file is a zip archive that zipfile can open."""
    with contextlib.suppress(OSError, zipfile.BadZipFile):
        return zipfile.is_zipfile(file)
    return False


def damage_bytes(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    file.write_bytes(damaged(content, draw) if content else b"?")
    return "bytes"


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes that were cut off, hit by bit flips, overwritten, or put together wrongly."""
    data, size = bytearray(content), len(content)
    match draw.choice(["cut", "flip", "header", "noise", "zeros", "insert", "swap", "end", "number"]):
        case "cut":
            data = data[: draw.randrange(size)]
        case "flip":
            data[draw.randrange(size)] ^= 1 << draw.randrange(8)
        case "header":
            for _ in range(draw.randrange(1, 6)):
                data[draw.randrange(min(size, 1000))] ^= 1 << draw.randrange(8)
        case "noise":
            for _ in range(200):
                data[draw.randrange(size)] = draw.randrange(256)
        case "zeros":
            start = draw.randrange(size)
            data[start : start + 1000] = bytes(len(data[start : start + 1000]))
        case "insert":
            start = draw.randrange(size)
            data[start:start] = draw.randbytes(draw.randrange(1, 50))
        case "swap":
            a, b = draw.randrange(size), draw.randrange(size)
            data[a : a + 64], data[b : b + 64] = data[b : b + 64], data[a : a + 64]
        case "end":
            for _ in range(8):
                data[-1 - draw.randrange(min(size, 1000))] = draw.randrange(256)
        case "number":  # a count or an offset somewhere near the start
            start = draw.randrange(min(size, 400))
            data[start : start + 8] = struct.pack("<Q", draw.choice([0, 1, 2**20, 2**31, 2**40, 2**62, 2**64 - 1]))
    return bytes(data[: size + 64])


def replace_by_something_else(file: Path, draw: random.Random) -> str:
    """A pipe, a link, a folder or a device where a file is expected."""
    file.unlink()
    kind = draw.choice(["fifo", "link outside", "link to zero", "link to itself", "folder", "nothing", "empty"])
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "link outside":
            file.symlink_to(Path(*[".."] * 2, OUTSIDE))
        case "link to zero":
            file.symlink_to("/dev/zero")
        case "link to itself":
            file.symlink_to(file.name)
        case "folder":
            file.mkdir()
        case "empty":
            file.touch()
    return kind


def change_tree(value: Any, draw: random.Random) -> Any:
    """One place of a tree of lists and dicts changed."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        match draw.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {draw.choice(TEXTS) if k == key else k: v for k, v in value.items()}
            case 2:
                return value | {draw.choice(TEXTS): value[key]}
            case _:
                return value | {key: change_tree(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        match draw.randrange(4):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return value + value[place : place + 1] * draw.choice([1, 1000])
            case _:
                return [*value[:place], change_tree(value[place], draw), *value[place + 1 :]]
    return nested(draw.choice([50, 901])) if draw.random() < 0.05 else draw.choice(VALUES)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def change_json(file: Path, draw: random.Random) -> str:
    file.write_bytes(as_json(change_tree(json.loads(file.read_bytes()), draw)))
    return "tree"


def change_safetensors(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = as_json(change_tree(json.loads(content[8 : 8 + length]), draw))
    said = len(header) if draw.random() < 0.9 else draw.choice([0, 2**20, 2**40, 2**63])
    file.write_bytes(struct.pack("<Q", said) + header + content[8 + length :])
    return "header"


def change_zip(file: Path, draw: random.Random) -> str:
    """An archive with one member changed, renamed, left out, repeated, or packed in another way."""
    with zipfile.ZipFile(file) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    place = draw.randrange(len(members))
    if pickles := [i for i, (info, _) in enumerate(members) if info.filename.endswith(".pkl")]:
        place = draw.choice([place, *pickles * 3])
    kind = draw.choice(["content", "content", "rename", "drop", "repeat", "deflate", "swap", "bomb"])
    info, _ = members[place]
    with zipfile.ZipFile(file, "w") as archive:
        for i, (member, data) in enumerate(members):
            name, packing = member.filename, member.compress_type
            if i == place:
                match kind:
                    case "content":
                        data = changed_member(name, data, draw)
                    case "rename":
                        name = draw.choice([f"../{OUTSIDE}", "/etc/passwd", name + "x", "archive/data.pkl"])
                    case "drop":
                        continue
                    case "repeat":
                        archive.writestr(name, data)
                    case "deflate":
                        packing = draw.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
                    case "swap":
                        data = draw.choice(members)[1]
                    case "bomb":
                        data, packing = bytes(2**26), zipfile.ZIP_DEFLATED
            archive.writestr(name, data, compress_type=packing)
    return f"{kind} {info.filename}"


def changed_member(name: str, data: bytes, draw: random.Random) -> bytes:
    if name.endswith(".json"):
        return as_json(change_tree(json.loads(data), draw))
    if name.endswith(".pkl"):
        return changed_pickle(data, draw)
    if name.endswith(".npy"):
        return changed_npy(data, draw)
    return damaged(data, draw) if data else b"?"


def changed_npy(data: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack("<H", data[8:10])
    header = {"descr": draw.choice(["<f4", ">f8", "|O", "<c16", "|V3", "<f2", [("a", "<f4")], 7]),
              "fortran_order": draw.choice([True, False, "no"]),
              "shape": draw.choice([(), (3,), (-1, 4), (2**40, 2**40), (0, 5), "x", (10**400, 2), (64, 32)])}  # fmt: skip
    text = repr(header) if draw.random() < 0.7 else "(" * draw.choice([10, 3000]) + "9" * draw.choice([10, 5000])
    return data[:8] + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + data[10 + length :]


class Canary:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.place,)


def changed_pickle(data: bytes, draw: random.Random) -> bytes:
    """A pickle with one opcode changed, or with a bomb in it."""
    try:
        opcodes = [(op, argument, place) for op, argument, place in pickletools.genops(data)]
    except ValueError:
        return damaged(data, draw)
    ends = [place for _, _, place in opcodes[1:]] + [len(data)]
    pieces = [data[place:end] for (_, _, place), end in zip(opcodes, ends, strict=True)]
    at = draw.randrange(1, len(pieces))
    match draw.choice(["drop", "repeat", "number", "text", "tuples", "lists", "run", "swap", "deep"]):
        case "drop":
            del pieces[at]
        case "repeat":
            pieces.insert(at, pieces[at])
        case "swap":
            other = draw.randrange(1, len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case "number":
            numbers = [
                i for i, (op, _, _) in enumerate(opcodes) if op.name in ("BININT", "BININT1", "BININT2", "LONG1")
            ]
            if numbers:
                pieces[draw.choice(numbers)] = pickle.dumps(draw.choice([-1, 0, 2**31, 2**63, 10**30, 1.5, None]), 2)[
                    2:-1
                ]
        case "text":
            texts = [i for i, (op, _, _) in enumerate(opcodes) if "UNICODE" in op.name]
            if texts:
                text = draw.choice(TEXTS).encode("utf-8", "surrogatepass")
                pieces[draw.choice(texts)] = b"X" + struct.pack("<I", len(text)) + text
        case "tuples":  # a key that takes 2^40 steps to hash
            pieces.insert(at, b"}(" + b")" + b"2\x86" * 40 + b"K\x01u0")
        case "lists":
            pieces.insert(at, b"]" + b"q\xf02a" * 3 + b"0")
        case "deep":
            pieces.insert(at, b"(" * 3000)
        case "run":
            pieces.insert(at, b"cos\nmkdir\nX\x06\x00\x00\x00canary\x85R0")
    return b"".join(pieces)


def change_pickles(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    stream = io.BytesIO(content)
    for _ in range(draw.randrange(3, 5)):  # a magic number, the protocol, the system, the object
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
    end = stream.tell()
    file.write_bytes(content[:start] + changed_pickle(content[start:end], draw) + content[end:])
    return "opcode"


def change_metadata(file: Path, draw: random.Random) -> str:
    """One field of the metadata of a distributed checkpoint."""
    if draw.random() < 0.3:
        file.write_bytes(changed_pickle(file.read_bytes(), draw))
        return "opcode"
    metadata = pickle.loads(file.read_bytes())
    places: list[tuple[Any, str]] = []

    def walk(value: Any, depth: int = 0) -> None:
        if depth > 8:
            return
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner, depth + 1)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner, depth + 1)
        elif hasattr(value, "__dict__"):
            for name, inner in vars(value).items():
                places.append((value, name))
                walk(inner, depth + 1)

    walk(metadata)
    owner, name = draw.choice(places)
    old = getattr(owner, name)
    choices = [None, [], {}, "x", -1, 0, 2**40, f"../../{OUTSIDE}", "/etc/passwd", (1, 2)]
    if isinstance(old, int):
        choices += [old + 1, old - 1, old * 2]
    object.__setattr__(owner, name, draw.choice(choices))
    file.write_bytes(pickle.dumps(metadata))
    return f"{type(owner).__name__}.{name}"


def change_onnx(file: Path, draw: random.Random) -> str:
    """One field of the graph, chosen among all of them."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    places: list[tuple[Any, Any]] = []

    def walk(message: Any, depth: int = 0) -> None:
        for field, value in message.ListFields():
            places.append((message, field))
            repeated = not hasattr(value, "DESCRIPTOR") and field.type == field.TYPE_MESSAGE
            for inner in value if repeated else [value]:
                if hasattr(inner, "ListFields") and depth < 12:
                    walk(inner, depth + 1)

    walk(model)
    message, field = draw.choice(places)
    value = getattr(message, field.name)
    try:
        if isinstance(value, str):
            setattr(message, field.name, draw.choice([t for t in TEXTS if t != "\ud800"]))
        elif isinstance(value, bytes):
            setattr(message, field.name, damaged(value, draw) if value else b"?")
        elif isinstance(value, int | float):
            setattr(message, field.name, type(value)(draw.choice([0, 1, 2, 7, 30000, 2**31 - 1, -1])))
        elif hasattr(value, "append") or hasattr(value, "add"):
            if draw.random() < 0.5:
                del value[draw.randrange(len(value))]
            elif not hasattr(value, "add"):
                value.append(value[0] if draw.random() < 0.5 else type(value[0])(0))
            else:
                value.add().CopyFrom(draw.choice(list(value)))
        else:
            message.ClearField(field.name)
    except (TypeError, ValueError, OverflowError):
        message.ClearField(field.name)
    file.write_bytes(model.SerializeToString())
    return f"{message.DESCRIPTOR.name}.{field.name}"


def change_hdf5(file: Path, draw: random.Random) -> str:
    """A dataset that lies elsewhere, unpacks to a lot, or is of another type; an attribute of another type; a link."""
    import h5py
    import numpy as np

    kind = draw.choice(["external", "virtual", "soft link", "external link", "type", "chunk", "attribute", "hard link"])
    with h5py.File(file, "a") as opened:
        names: list[str] = []
        opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = draw.choice(names)
        shape = opened[name].shape
        outside = str(file.parents[1] / OUTSIDE)
        if kind == "attribute":
            owner = draw.choice([opened, opened[name].parent])
            key = draw.choice([*owner.attrs, "model_config", "layer_names", "backend"])
            value = draw.choice([1, 2.5, "{", "[1]", '{"config": 1}', np.arange(5), b"\xff\xfe", h5py.Empty("f")])
            owner.attrs[key] = value
            return f"{kind} {key}"
        del opened[name]
        match kind:
            case "external":
                opened.create_dataset(name, shape, "f4", external=[(outside, 0, h5py.h5f.UNLIMITED)])
            case "virtual":
                layout = h5py.VirtualLayout(shape, "f4")
                layout[...] = h5py.VirtualSource(outside, "w", shape)
                opened.create_virtual_dataset(name, layout)
            case "soft link":
                opened[name] = h5py.SoftLink("/")
            case "hard link":
                opened[name] = opened
            case "external link":
                opened[name] = h5py.ExternalLink(outside, "/w")
            case "type":
                kinds = ["i4", "c8", "S5", h5py.string_dtype(), np.dtype([("a", "f4")]), "f2", "f8", bool]
                opened.create_dataset(name, shape, draw.choice(kinds))
            case "chunk":
                side = 2**14
                opened.create_dataset(
                    name,
                    (64, 32),
                    "f4",
                    maxshape=(None, None),
                    chunks=(side, side // 2),
                    compression="gzip",
                    fillvalue=1.0,
                )[:2] = 1.0
    return kind


def planted(place: Path, value: float) -> None:
    """The file that no input may read: the same float32 over and over."""
    place.write_bytes(struct.pack("<f", value) * 2**16)


def copied(original: Path, place: Path) -> None:
    shutil.copytree(original, place, symlinks=True)
