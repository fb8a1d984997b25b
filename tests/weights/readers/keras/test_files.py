"""Keras models give the same rows from every file format and from memory; the truth is Keras's own variables."""

import os

import numpy as np
import pytest

from htsr.weights import open_source

os.environ.setdefault("KERAS_BACKEND", "torch")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")
keras = pytest.importorskip("keras", reason="keras is not installed")
L = keras.layers


@keras.saving.register_keras_serializable(package="htsr_tests")
class Gated(L.Layer):
    """A layer of its own with two matrices and a vector."""

    def build(self, shape):
        self.one = self.add_weight(shape=(shape[-1], 11), name="one")
        self.two = self.add_weight(shape=(shape[-1], 11), name="two")
        self.three = self.add_weight(shape=(11,), name="three")

    def call(self, x):
        return (x @ self.one) * (x @ self.two) + self.three


def attention(heads):
    """Turn (in, heads, size) into (heads * size, in), and (heads, size, out) into (out, heads * size)."""
    return {
        "query.weight": lambda w: w.reshape(w.shape[0], -1).T,
        "attention_output.weight": lambda w: w.reshape(-1, w.shape[-1]).T,
    }


def same(w):
    return w.T


def kernel(w):
    return np.moveaxis(w, (-1, -2), (0, 1))


def gates(w):
    """The kernels of i, f, c and o, which Keras stacks as outputs."""
    return np.split(kernel(w), 4)


# Each layer on an input of some shape: its type, and what matrix its variables are.
LAYERS = {
    "dense": (L.Dense, {"units": 9}, (7,), "dense", {"kernel": same}),
    "einsum": (L.EinsumDense, {"equation": "abc,cde->abde", "output_shape": (None, 4, 6)}, (5, 8), "dense",
               {"kernel": lambda w: w.reshape(w.shape[0], -1).T}),
    "einsum_many_inputs": (L.EinsumDense, {"equation": "...xy,xyz->...z", "output_shape": (9,)}, (4, 5), "dense",
                           {"kernel": lambda w: w.reshape(-1, w.shape[-1]).T}),
    "heads": (L.EinsumDense, {"equation": "bhi,hij->bhj", "output_shape": (3, 6)}, (3, 5), "stack",
              {"kernel": lambda w: w.transpose(0, 2, 1)}),
    "separable": (L.SeparableConv2D, {"filters": 10, "kernel_size": 3, "depth_multiplier": 2}, (8, 8, 5), "conv2d",
                  {"depthwise_kernel": lambda w: w.reshape(9, -1).T, "pointwise_kernel": kernel}),
    "depthwise": (L.DepthwiseConv1D, {"kernel_size": 5}, (9, 6), "conv1d", {"kernel": lambda w: w.reshape(5, -1).T}),
    "conv": (L.Conv3D, {"filters": 4, "kernel_size": 2}, (5, 5, 5, 3), "conv3d", {"kernel": kernel}),
    "upwards": (L.Conv1DTranspose, {"filters": 4, "kernel_size": 3}, (9, 6), "conv_transpose1d",
                {"kernel": lambda w: w.transpose(1, 2, 0)}),
    "conv_lstm1d": (L.ConvLSTM1D, {"filters": 5, "kernel_size": 2}, (2, 6, 3), "conv1d",
                    {"kernel": gates, "recurrent_kernel": gates}),
    "conv_lstm2d": (L.ConvLSTM2D, {"filters": 4, "kernel_size": 3}, (2, 6, 6, 3), "conv2d",
                    {"kernel": gates, "recurrent_kernel": gates}),
    "own": (Gated, {}, (12,), "dense", {"one": same, "two": same}),
    "rnn": (L.SimpleRNN, {"units": 6}, (4, 5), "rnn", {"kernel": same, "recurrent_kernel": same}),
}  # fmt: skip


def save_all(model, path):
    """Return the model and the files of it in every format."""
    model.save(path / "m.keras")
    model.save(path / "m.h5")
    return [path / "m.keras", path / "m.h5", model]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["first", "dense", "lstm_cell"])
@pytest.mark.parametrize("case", LAYERS)
def test_layer(case, name, tmp_path):
    make, settings, shape, layer_type, truths = LAYERS[case]
    model = keras.Sequential([keras.Input(shape), make(**settings, name=name)])
    variables = {weight.path.rpartition("/")[2]: weight.numpy() for weight in model.weights}
    wanted = [truth(variables[key]) for key, truth in truths.items()]
    if layer_type == "stack" or truths.get("kernel") is gates:
        wanted = [matrix for stacked in wanted for matrix in stacked]
    for source in save_all(model, tmp_path):
        layers = open_source(source).layers
        assert {layer.layer_type for layer in layers} == {layer_type}
        assert all(layer.name.startswith(name) for layer in layers)
        for layer, truth in zip(layers, wanted, strict=True):
            np.testing.assert_array_equal(layer.load(), truth)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "layer", [L.MultiHeadAttention(4, 6), L.GroupQueryAttention(6, 4, 2)], ids=["all heads", "groups of heads"]
)
def test_attention_is_four_dense_matrices(layer, tmp_path):
    given = keras.Input((5, 20))
    model = keras.Model(given, layer(given, given))
    variables = {weight.path.split("/", 1)[1]: weight.numpy() for weight in model.weights}
    for source in [*save_all(model, tmp_path), weights_file(model, tmp_path)]:
        # the number in the name of the only layer depends on the process, so its name is left out
        layers = {item.name: item for item in open_source(source).layers}
        assert set(layers) == {"query", "key", "value", "attention_output"}
        for name, item in layers.items():
            weight = variables[f"{name}/kernel"]
            flat = (
                weight.reshape(-1, weight.shape[-1])
                if name == "attention_output"
                else weight.reshape(weight.shape[0], -1)
            )
            np.testing.assert_array_equal(item.load(), flat.T)


def weights_file(model, path):
    model.save_weights(path / "m.weights.h5")
    return path / "m.weights.h5"


@pytest.mark.filterwarnings("ignore")
def test_recurrent_layers_in_wrappers_and_nested_models(tmp_path):
    given = keras.Input((5, 8))
    inner = keras.Sequential([keras.Input((5, 8)), L.Dense(8, name="same"), L.LayerNormalization()], name="inside")
    nested = inner(given)
    both = L.Bidirectional(L.LSTM(6, name="walk"), name="both")(nested)
    cells = L.RNN([L.LSTMCell(4, name="low"), L.GRUCell(3, name="high")], name="stacked")(nested)
    dense = L.TimeDistributed(L.Dense(7, name="same"), name="each")(nested)
    model = keras.Model(given, [both, cells, dense])
    tables = []
    for source in save_all(model, tmp_path):
        tables.append({layer.name: layer for layer in open_source(source).layers})
    assert set(tables[0]) == set(tables[1]) == set(tables[2])
    assert len(tables[0]) == 1 + 2 * 8 + 8 + 6 + 1
    for name, layer in tables[0].items():
        for other in tables[1:]:
            assert (other[name].layer_type, other[name].shape) == (layer.layer_type, layer.shape)
            np.testing.assert_array_equal(other[name].load(), layer.load())
    forget = {weight.path: weight.numpy() for weight in model.weights}["both/forward_walk/lstm_cell/kernel"][:, 6:12]
    np.testing.assert_array_equal(tables[0]["both.forward_walk.weight_ih_l0[f]"].load(), forget.T)


def hdf5(path, fill):
    with h5py.File(path, "w") as file:
        file.create_dataset("dense/dense/good", data=np.random.default_rng(0).normal(size=(30, 20)))
        fill(file)
    return path


def chunk_bomb(file):
    bad = file.create_dataset("dense/dense/bad", (30, 20), "f8", chunks=(30, 20), compression="gzip")
    import zlib

    bad.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26)))


def missing_chunk(file):
    file.create_dataset("dense/dense/bad", (30, 20), "f8", chunks=(10, 20))[:10] = 1


BAD = {
    "a chunk that unpacks to more": (chunk_bomb, "decompression bomb"),
    "missing chunks": (missing_chunk, "of its 3 chunks"),
    "no values": (lambda file: file.create_dataset("dense/dense/bad", (30, 20), "f8", fillvalue=7), "no values"),
    "a fill value without end": (
        lambda file: file.create_dataset("dense/dense/bad", (10**6, 10**5), "f4", fillvalue=7), "decompression bomb",
    ),
    "no space at all": (lambda file: file.__setitem__("dense/dense/bad", h5py.Empty("f4")), "no elements"),
    "an external file": (
        lambda file: file.create_dataset("dense/dense/bad", (30, 20), "f8", external=[("/etc/passwd", 0, 4800)]), "another file",
    ),
    "a link": (lambda file: file.__setitem__("dense/dense/bad", h5py.ExternalLink("/etc/passwd", "/x")), "a link"),
    "a soft link": (lambda file: file.__setitem__("dense/dense/bad", h5py.SoftLink("/dense/dense/good")), "a link"),
    "text": (lambda file: file.create_dataset("dense/dense/bad", data=np.full((30, 20), b"x")), "not numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_datasets_that_are_not_read(case, tmp_path):
    fill, reason = BAD[case]
    inventory = open_source(hdf5(tmp_path / "m.h5", fill))
    assert [layer.name for layer in inventory.layers] == ["dense.good"]
    (skipped,) = [item for item in inventory.skipped if item.name.endswith("bad")]
    assert reason in skipped.reason


@pytest.mark.parametrize("value", [3, 1.5, b"\xff\xfe", [1, 2], "x" * 5000, np.zeros((2, 2)), "", "{}", "[1]", "{"])
@pytest.mark.parametrize("attribute", ["name", "model_config"])
def test_attributes_of_any_type(attribute, value, tmp_path):
    from htsr import InputError

    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.random.default_rng(0).normal(size=(30, 20)))
        (file["layers/dense/vars"] if attribute == "name" else file).attrs[attribute] = value
    try:
        (layer,) = open_source(tmp_path / "m.h5").layers
    except InputError:
        assert attribute == "model_config"
    else:
        assert layer.shape == (20, 30)


def test_spectral_normalization_keeps_one_row_of_its_layer(tmp_path):
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(5))
    model = keras.Sequential([keras.Input((7,)), layer])
    model.save(tmp_path / "m.keras")
    for source in (model, tmp_path / "m.keras"):
        inventory = open_source(source)
        assert [found.shape for found in inventory.layers] == [(5, 7)]
        kept = [item.reason for item in inventory.skipped if len(item.shape) == 2]
        assert kept
        assert all("spectral normalisation" in reason for reason in kept)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantised_kernel_says_what_to_do(mode, tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16)])
    model.quantize(mode)
    model.save(tmp_path / "m.keras")
    for source in (model, tmp_path / "m.keras"):
        inventory = open_source(source)
        assert not inventory.layers
        reasons = {item.name.rpartition(".")[2]: item.reason for item in inventory.skipped}
        assert "before Model.quantize" in reasons["weight"]
