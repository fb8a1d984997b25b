"""The same small model gives the same table in every format."""

import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed import checkpoint as dcp

import htsr
from htsr.weights import open_source

KERAS_BACKEND = "torch"


class Small(nn.Module):
    """An embedding, a convolution, a recurrent layer and a matrix, which every format can hold."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(60, 24)
        self.conv = nn.Conv2d(3, 16, 3)
        self.gru = nn.GRU(24, 32, batch_first=True)
        self.fc = nn.Linear(32, 20)

    def forward(self, ids, image):
        return self.fc(self.gru(self.embed(ids))[0]), self.conv(image)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Small().eval()


def halves(tensors):
    keys = list(tensors)
    return [{k: tensors[k] for k in keys[::2]}, {k: tensors[k] for k in keys[1::2]}]


def module(model, path):
    return model


def state_dict(model, path):
    return model.state_dict()


def arrays(model, path):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def safetensors_file(model, path):
    save_file(model.state_dict(), path / "m.safetensors")
    return path / "m.safetensors"


def safetensors_shards(model, path):
    for i, shard in enumerate(halves(model.state_dict()), start=1):
        save_file(shard, path / f"model-{i:05d}-of-00002.safetensors")
    return path


def safetensors_shards_and_index(model, path):
    weight_map = {}
    for i, shard in enumerate(halves(model.state_dict())):
        save_file(shard, path / f"part{i}.safetensors")
        weight_map |= dict.fromkeys(shard, f"part{i}.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


def torch_file(model, path):
    torch.save(model.state_dict(), path / "m.pt")
    return path / "m.pt"


def torch_file_of_the_old_format(model, path):
    torch.save(model.state_dict(), path / "m.pth", _use_new_zipfile_serialization=False)
    return path / "m.pth"


def training_state(model, path):
    optimizer = torch.optim.AdamW(model.parameters())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}, path / "m.ckpt")
    return path / "m.ckpt"


def lightning(model, path):
    tensors = {f"net.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": tensors, "pytorch-lightning_version": "2.5.0", "epoch": 1}, path / "m.ckpt")
    return path / "m.ckpt"


def data_parallel(model, path):
    torch.save({"state_dict": nn.DataParallel(model).state_dict()}, path / "m.pth")
    return path / "m.pth"


def compiled(model, path):
    torch.save(torch.compile(model).state_dict(), path / "m.pt")
    return path / "m.pt"


def bin_shards(model, path):
    for i, shard in enumerate(halves(model.state_dict()), start=1):
        torch.save(shard, path / f"pytorch_model-{i:05d}-of-00002.bin")
    torch.save({"lr": 0.1}, path / "training_args.bin")
    return path


def distributed(model, path):
    dcp.save({"model": model.state_dict(), "step": 3}, checkpoint_id=path / "d", no_dist=True)
    return path / "d"


def distributed_flat(model, path):
    dcp.save(model.state_dict(), checkpoint_id=path / "d", no_dist=True)
    return path / "d"


def npz(model, path):
    np.savez(path / "m.npz", **arrays(model, path))
    return path / "m.npz"


def npz_compressed(model, path):
    np.savez_compressed(path / "m.npz", **arrays(model, path))
    return path / "m.npz"


def gguf_file(model, path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    writer = gguf.GGUFWriter(path / "m.gguf", "llama")
    for key, value in model.state_dict().items():
        writer.add_tensor(key, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path / "m.gguf"


def onnx_file(model, path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    inputs = (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(1, 3, 8, 8))
    torch.onnx.export(model, inputs, path / "m.onnx", dynamo=False)
    return path / "m.onnx"


def onnx_external(model, path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnx.save(
        onnx.load(onnx_file(model, path)),
        path / "e.onnx",
        save_as_external_data=True,
        location="e.data",
        size_threshold=0,
    )
    return path / "e.onnx"


def onnx_dynamo(model, path):
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    inputs = (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(1, 3, 8, 8))
    torch.onnx.export(model, inputs, path / "d.onnx", dynamo=True, verbose=False)
    return path / "d.onnx"


def keras_model(model):
    os.environ["KERAS_BACKEND"] = KERAS_BACKEND
    keras = pytest.importorskip("keras", reason="keras is not installed")
    ids, image = keras.Input((5,), dtype="int32"), keras.Input((8, 8, 3))
    table, gru = keras.layers.Embedding(60, 24, name="embed"), keras.layers.GRU(32, name="gru")
    fc, conv = keras.layers.Dense(20, name="fc"), keras.layers.Conv2D(16, 3, name="conv")
    copy = keras.Model([ids, image], [fc(gru(table(ids))), conv(image)])
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}

    def zrh(weight):  # torch stacks r, z, n as (out, in); Keras stacks z, r, h as (in, out)
        r, z, n = np.split(weight, 3)
        return np.concatenate([z, r, n]).T

    table.set_weights([tensors["embed.weight"]])
    gru.set_weights([zrh(tensors["gru.weight_ih_l0"]), zrh(tensors["gru.weight_hh_l0"]), np.zeros((2, 96))])
    fc.set_weights([tensors["fc.weight"].T, tensors["fc.bias"]])
    conv.set_weights([tensors["conv.weight"].transpose(2, 3, 1, 0), tensors["conv.bias"]])
    return copy


def keras_file(model, path):
    keras_model(model).save(path / "m.keras")
    return path / "m.keras"


def keras_h5(model, path):
    keras_model(model).save(path / "m.h5")
    return path / "m.h5"


def remote(model, path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    safetensors_shards(model, path)
    fsspec.filesystem("memory").put(str(path), "/bucket/model", recursive=True)
    return "memory://bucket/model"


FORMATS = [
    module, state_dict, arrays, safetensors_file, safetensors_shards, safetensors_shards_and_index, torch_file,
    torch_file_of_the_old_format, training_state, lightning, data_parallel, compiled, bin_shards, distributed,
    distributed_flat, npz, npz_compressed, gguf_file, onnx_file, onnx_dynamo, onnx_external, keras_file, keras_h5, remote,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # exporters and writers warn about themselves
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_table(model, write, tmp_path):
    reference = htsr.analyze(model).details.set_index("name").sort_index()
    assert len(reference) == 9
    source = write(model, tmp_path)
    analysis = htsr.analyze(source)
    details = analysis.details.set_index("name").sort_index()
    summary = analysis.summary()
    initial_state = 64 if "onnx" in write.__name__ else 0  # a constant of the graph
    assert summary["num_params"] == sum(p.numel() for p in model.parameters()) + initial_state
    assert summary["num_params_analyzed"] == (details["N"] * details["M"] * details["rf"]).sum()
    assert summary["num_params_skipped"] == summary["num_params"] - summary["num_params_analyzed"]
    exact = [
        "layer_type",
        "dtype",
        "N",
        "M",
        "Q",
        "rf",
        "num_evals",
        "num_pl_spikes",
        "status",
        "reason",
        "warning",
        "tied_to",
    ]
    pd.testing.assert_frame_equal(details[exact], reference[exact])
    close = ["alpha", "D", "xmin", "xmax", "spectral_norm", "stable_rank", "log_norm", "num_spikes", "bulk_max"]
    pd.testing.assert_frame_equal(details[close], reference[close], rtol=1e-9)
    for layer in open_source(source).layers:  # workers receive a layer as a pickle without its matrix
        sent = pickle.dumps(layer)
        assert torch.equal(pickle.loads(sent).load(), layer.load())
        assert isinstance(source, nn.Module | dict) or len(sent) < 3000
