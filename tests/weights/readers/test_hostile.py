"""Every hostile input quickly gives a clear error or a row with a reason, and none executes anything.

There are more than three hundred inputs: 17 damaged files for each of 13 formats, 5 wrong contents under each of 9 suffixes, 21
values without a spectrum, and the attacks below.
"""

import functools
import json
import os
import pickle
import random
import shutil
import struct
import time
import zipfile

import numpy as np
import pytest
import torch

import htsr
from htsr import InputError
from tests.weights.readers import test_formats as formats

SECONDS = 10


class Evil:
    """An object whose pickle creates a directory when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def audit(source):
    """Return the analysis of an input, or the error that refuses it; any other exception fails the test."""
    start = time.perf_counter()
    try:
        analysis = htsr.analyze(source, progress=False)
    except (InputError, OSError) as err:
        result = err
    else:
        details = analysis.details
        assert len(details) + len(analysis.skipped) > 0
        assert (analysis.skipped["reason"] != "").all()
        assert (details.loc[details["status"] == "failed", "reason"] != "").all()
        result = analysis
    assert time.perf_counter() - start < SECONDS
    assert len(str(result)) > 20
    return result


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """Import what an audit needs and start the guarded process: the limit is on reading, not on that."""
    torch.save({"w": torch.randn(40, 30)}, tmp_path_factory.mktemp("first") / "w.pt")
    htsr.analyze(tmp_path_factory.getbasetemp() / "first0" / "w.pt", progress=False)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return a function that writes the small model in a format, and returns the directory and the path to open."""
    torch.manual_seed(0)
    model = formats.Small().eval()

    @functools.cache
    def original(write):
        directory = tmp_path_factory.mktemp(write.__name__)
        return directory, write(model, directory)

    return original


CONTENTS = {
    "nothing": b"",
    "text": b"hello world\n" * 50,
    "zeros": bytes(5000),
    "noise": random.Random(0).randbytes(5000),
    "a page": b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>" * 9,
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt", ".bin", ".npz", ".gguf", ".onnx", ".keras", ".h5"])
def test_other_content_under_a_name_that_promises_a_checkpoint(suffix, tmp_path):
    for name, content in CONTENTS.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        result = audit(path)
        assert isinstance(result, InputError)
        assert str(path) in str(result)


def evil_zip(path, canary):
    torch.save({"w": torch.randn(20, 20), "e": Evil(canary)}, path / "m.pt")
    return path / "m.pt"


def evil_old_format(path, canary):
    torch.save({"w": torch.randn(20, 20), "e": Evil(canary)}, path / "m.pth", _use_new_zipfile_serialization=False)
    return path / "m.pth"


def evil_bare_pickle(path, canary):
    (path / "m.bin").write_bytes(pickle.dumps(Evil(canary)))
    return path / "m.bin"


def evil_protocol_0(path, canary):
    (path / "m.ckpt").write_bytes(pickle.dumps(Evil(canary), protocol=0))
    return path / "m.ckpt"


def evil_distributed(path, canary):
    (path / ".metadata").write_bytes(pickle.dumps(Evil(canary)))
    return path


def evil_npz(path, canary):
    np.savez(path / "m.npz", a=np.array([Evil(canary)], dtype=object))
    return path / "m.npz"


@pytest.mark.parametrize(
    "write", [evil_zip, evil_old_format, evil_bare_pickle, evil_protocol_0, evil_distributed, evil_npz]
)
def test_nothing_is_executed(write, tmp_path):
    canary = tmp_path / "canary"
    result = audit(write(tmp_path, canary))
    assert not canary.exists()
    said = str(result) if isinstance(result, Exception) else result.skipped["reason"][0]
    assert "mkdir" in said or "could run any program" in said
    pickle.loads(pickle.dumps(Evil(canary)))
    assert canary.exists()  # the attack works if the pickle is loaded


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_module_is_refused_by_the_names_of_its_classes(new, tmp_path):
    torch.save(torch.nn.Linear(4, 4), tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    assert "imports more than tensors need: torch.nn.modules.linear.Linear." in str(audit(tmp_path / "m.pt"))


def test_bombs(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10000, 6750)})
        for _ in range(270):
            file.write(bytes(10**6))
    assert "zip bomb" in str(audit(tmp_path / "a.npz"))
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    assert "entries are compressed" in str(audit(tmp_path / "b.pt"))
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)})
    assert "more values than" in audit(tmp_path / "c.npz").skipped["reason"][0]
    deep: dict = {"w": 1}
    for _ in range(60):
        deep = {"a": deep, "b": deep}
    torch.save(deep, tmp_path / "d.pt")
    audit(tmp_path / "d.pt")
    torch.save({"w": torch.randn(1).expand(10**6, 10**6)}, tmp_path / "e.pt")
    assert "repeats the values" in audit(tmp_path / "e.pt").skipped["reason"][0]
    (tmp_path / "f.pt").write_bytes(b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".")
    assert isinstance(audit(tmp_path / "f.pt"), InputError)


def test_bombs_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["passwords"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["again"] = file["/"]
        file["soft"] = h5py.SoftLink("/soft")
        file.create_group("group")["up"] = file["/"]
        file.create_dataset("bomb", shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000), compression="gzip")
        file.create_dataset("outside", shape=(10, 10), dtype="f4", external=[("/etc/passwd", 0, 400)])
        file.create_dataset("w", data=np.random.default_rng(0).normal(size=(20, 20)))
    analysis = audit(tmp_path / "m.h5")
    assert list(analysis.details["name"]) == ["w"]
    reasons = dict(zip(analysis.skipped["name"], analysis.skipped["reason"], strict=True))
    assert "decompression bomb" in reasons["bomb"]
    assert "in another file" in reasons["outside"]


@pytest.mark.parametrize(
    "header",
    [
        json.dumps({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 8]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 2**60]}}).encode(),
        json.dumps({"a": {"dtype": "F33", "shape": [2, 2], "data_offsets": [0, 16]}}).encode(),
        b'{"a":' * 100000,
        b"[]",
    ],
)
def test_safetensors_headers_that_lie(header, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert isinstance(audit(path), InputError)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<IQQ", 3, 2**60, 2**60) + bytes(100),
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2**50) + bytes(10**6),
        struct.pack("<IQQQ1s", 3, 0, 1, 1, b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100000,
        struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 8, 2**50) + bytes(10**6),
    ],
)
def test_gguf_headers_that_lie(content, tmp_path):
    pytest.importorskip("gguf", reason="gguf is not installed")
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + content)
    assert isinstance(audit(tmp_path / "m.gguf"), InputError)


@pytest.mark.parametrize("location", ["../../../../etc/passwd", "/etc/passwd", "missing.bin"])
def test_onnx_weights_outside_of_the_directory(location, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    tensor = onnx.TensorProto(name="w", dims=[20, 20], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "1600"}.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])), tmp_path / "m.onnx")
    details = audit(tmp_path / "m.onnx").details
    assert details["status"][0] == "failed"
    assert location in details["reason"][0]


def test_links_in_circles(tmp_path):
    itself = tmp_path / "itself"
    itself.symlink_to(itself)
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    a.symlink_to(b)
    b.symlink_to(a)
    (tmp_path / "up").symlink_to(tmp_path)
    for path in (itself, a, tmp_path, tmp_path / "up" / "up" / "up"):
        assert "symbolic link" in str(audit(path))


def test_shards_of_a_distributed_checkpoint_outside_of_its_directory(originals, tmp_path):
    _, source = originals(formats.distributed)
    shutil.copytree(source, tmp_path / "d")
    (shard,) = (tmp_path / "d").glob("*.distcp")
    shard.rename(tmp_path / "d" / "x.distcp")
    analysis = audit(tmp_path / "d")
    assert analysis.skipped["reason"].str.contains("is not in the directory").sum() == 9


VALUES = {
    "of size zero": torch.zeros(0, 4),
    "a scalar": torch.tensor(3.0),
    "NaN": torch.full((20, 20), torch.nan),
    "one Inf": torch.eye(20).index_put((torch.tensor(0), torch.tensor(1)), torch.tensor(torch.inf)),
    "denormals": torch.full((20, 20), 1e-45),
    "denormals in float64": torch.full((20, 20), 5e-324, dtype=torch.float64),
    "too large to square": torch.full((20, 20), 1e200, dtype=torch.float64),
    "zeros": torch.zeros(20, 20),
    "complex": torch.randn(9, 9, dtype=torch.complex64),
    "sparse": torch.eye(9).to_sparse(),
    "compressed sparse": torch.eye(9).to_sparse_csr(),
    "booleans": torch.ones(9, 9, dtype=torch.bool),
    "nested": torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)]),
    "meta": torch.zeros(9, 9, device="meta"),
    "fp8 NaN": torch.full((20, 20), torch.nan).to(torch.float8_e4m3fn),
    "fp4": torch.zeros(9, 9, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "text": np.array([["a", "b"]]),
    "objects": np.array([[object()]]),
    "records": np.zeros((3, 4), dtype=[("a", "f4")]),
    "nine sides": torch.zeros(1, 1, 1, 1, 1, 1, 1, 3, 4),
    "not a tensor": 3,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_without_a_spectrum_have_a_reason(value):
    analysis = audit({"w": value, "good": torch.randn(20, 20, generator=torch.Generator().manual_seed(0))})
    details = analysis.details.set_index("name")
    assert details.loc["good", "status"] == "success"
    if "w" in details.index:
        assert details.loc["w", "status"] == "failed"
    else:
        assert list(analysis.skipped["name"]) == ["w"]
