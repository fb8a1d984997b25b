"""The checkpoint formats, and the one boundary through which their readers are called.

Whatever a reader raises comes out as an InputError that names the file. Readers whose libraries parse pickles, protobuf or HDF5
run in the guarded process.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.inventory import Listing
from htsr.weights.readers.archives import check_no_lfs_pointer, unreadable_file
from htsr.weights.readers.guard import guarded
from htsr.weights.readers.shards import Chosen, choose_shards

Reader = Callable[..., Listing]


@dataclass(frozen=True)
class Format:
    """One format: where its reader is, and whether the reader runs in the guarded process.

    Attributes:
        kind: What people call a file of it.
        reader: Name of a function in the module of this room that ``module`` names: ``(path) -> Listing``, or
            ``(path, files) -> Listing`` if a checkpoint of the format can have several files.
        module: Name of that module in this room; it is imported only when a file of the format is met.
        guarded: Whether its headers are read in the guarded process.
        metadata: Name of the file that is read to list a directory, if it is one file.
        shards: Suffix of the files of a checkpoint, if it can have several.
    """

    kind: str
    module: str
    reader: str
    guarded: bool = True
    metadata: str = ""
    shards: str = ""

    def list_tensors(self, path: Path, files: Sequence[Path] = ()) -> Listing:
        """Return the tensors of a file, of a directory, or of these files of one."""
        if self.shards and not files:
            chosen = choose_shards(path, self.shards) if path.is_dir() else Chosen([path])
            if chosen is None:
                raise InputError(f"{path}: expected *.{self.shards}, found none")
            files = chosen.files
        for file in files:
            check_no_lfs_pointer(file)
        arguments = [path, list(files)] if self.shards else [path]
        reader: Reader = getattr(import_module(f"htsr.weights.readers.{self.module}"), self.reader)
        if not self.guarded:
            return _list_tensors(reader, self.kind, *arguments)
        read = [path / self.metadata] if self.metadata else files or [path]
        size = sum(file.stat().st_size for file in read)
        return guarded(_list_tensors, reader, self.kind, *arguments, path=path, size=size)


SAFETENSORS = Format("safetensors file", "safetensors", "read_safetensors", guarded=False, shards="safetensors")
NPZ = Format("npz archive", "npz", "read_npz", guarded=False)
TORCH = Format("torch checkpoint", "torch.files", "read_torch", shards="bin")
TORCH_DISTRIBUTED = Format(
    "directory of torch.distributed.checkpoint", "torch.distributed", "read_torch_distributed", metadata=".metadata"
)
GGUF = Format("GGUF file", "gguf", "read_gguf", shards="gguf")
ONNX = Format("ONNX file", "onnx.files", "read_onnx")
KERAS = Format("Keras file", "keras.files", "read_keras")

BY_SUFFIX = {
    ".safetensors": SAFETENSORS, ".pt": TORCH, ".pth": TORCH, ".ckpt": TORCH, ".bin": TORCH, ".jit": TORCH, ".ptl": TORCH,
    ".pt2": TORCH, ".npz": NPZ, ".gguf": GGUF, ".onnx": ONNX, ".keras": KERAS, ".h5": KERAS, ".hdf5": KERAS,
}  # fmt: skip

# Models of formats that have no reader here, and containers of anything, by the end of the name of a file or directory: what they
# are, and what to do with them.
_TF2ONNX = "convert it to ONNX (`python -m tf2onnx.convert --{} {} --output model.onnx`) and pass that file"
_CORE_ML = "a Core ML model", "no tool converts it back: convert the model that it was made from to ONNX or safetensors"
_PADDLE = "a Paddle model", "convert it to ONNX with paddle2onnx and pass that file"
_COMPILED = "convert the model that it was made from to ONNX or safetensors and pass that"
_PICKLE = "a pickle, which could run any program", "load it yourself, convert it to {name: array} and pass that"
_ARCHIVE = "an archive", "unpack it with `tar -xf` and pass the checkpoint inside"
FOREIGN_MODELS = {
    ".tflite": ("a TensorFlow Lite model", _TF2ONNX.format("tflite", "model.tflite")),
    "saved_model.pb": ("a TensorFlow SavedModel", _TF2ONNX.format("saved-model", "DIRECTORY")),
    ".pb": ("a TensorFlow graph", _TF2ONNX.format("graphdef", "model.pb")),
    ".data-00000-of-00001": (
        "a TensorFlow checkpoint", "convert it to {name: array} with tf.train.load_checkpoint and pass that"
    ),
    ".mlmodel": _CORE_ML, ".mlpackage": _CORE_ML, ".mlmodelc": _CORE_ML,
    ".pdmodel": _PADDLE, ".pdiparams": _PADDLE, ".pdparams": _PADDLE,
    ".msgpack": (
        "a Flax checkpoint", "convert it to {name: array} with flax.serialization.msgpack_restore and pass that"
    ),
    ".caffemodel": ("a Caffe model", "convert it to ONNX and pass that file"),
    ".ort": ("an ONNX Runtime model", _COMPILED), ".engine": ("a TensorRT engine", _COMPILED),
    ".mnn": ("an MNN model", _COMPILED),
}  # fmt: skip
CONTAINERS = {
    ".nemo": ("an archive of NeMo", "unpack it with `tar -xf` and pass model_weights.ckpt"),
    ".tar": _ARCHIVE, ".tar.gz": _ARCHIVE, ".tgz": _ARCHIVE, ".pkl": _PICKLE, ".pickle": _PICKLE, ".joblib": _PICKLE,
}  # fmt: skip


def foreign_model(path: Path) -> tuple[str, str] | None:
    """Return what a model of a format without a reader is, and what to do with it; None for any other path."""
    name = re.sub(r"\.data-\d{5}-of-\d{5}$", ".data-00000-of-00001", path.name.lower())
    return next((found for end, found in FOREIGN_MODELS.items() if name.endswith(end)), None)


def check_not_foreign(path: Path) -> None:
    """Raise InputError with what to convert it to if a file or directory is of a format that has no reader."""
    inside = path / "saved_model.pb"
    known = foreign_model(inside if inside.exists() else path)
    container = next((found for end, found in CONTAINERS.items() if path.name.lower().endswith(end)), None)
    if found := known or container:
        raise InputError(f"{path}: {found[0]}: {found[1]}")


def _list_tensors(reader: Reader, kind: str, path: Path, *files: Sequence[Path]) -> Listing:
    """Call a reader and turn whatever it stumbles over into an InputError with the file's name."""
    try:
        return reader(path, *files)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as err:  # damage can make a parser raise anything
        raise unreadable_file(path, kind, err) from err
