"""Surveys of networks that were stored, converted, quantised and changed in known ways."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import torch

import htsr
from htsr.comparison.survey import families, networks
from htsr.errors import InputError
from tests.comparison.survey.conftest import changed, int8, network, renamed, save, save_onnx

N = 5  # matrices of the network


def rows(survey):
    """The rows by the name of the file."""
    return {re.split(r"[\\/]", row["path"])[-1]: row for row in survey.files.to_dict("records")}


def relation(*paths):
    """The relation and the evidence of the one of two files that refers to the other."""
    found = htsr.survey(list(paths)).files
    (row,) = found[found["to"] != ""].to_dict("records")
    return row["relation"], row["evidence"]


@pytest.fixture
def base(tmp_path):
    return save(tmp_path / "base.safetensors", network())


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors"])
@pytest.mark.parametrize("names", ["same", "others"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_network_in_other_formats_types_and_names(base, tmp_path, suffix, names, dtype):
    tensors = network() if names == "same" else renamed(network())
    path = save(tmp_path / f"other{suffix}", {name: tensor.to(dtype) for name, tensor in tensors.items()})
    kind, evidence = relation(base, path)
    if names == "same" and suffix == ".safetensors" and dtype == torch.float32:
        assert (kind, evidence) == ("same bytes", f"all {path.stat().st_size:,} bytes equal")
        return
    assert kind == "same weights"
    if dtype == torch.float32:
        assert evidence.startswith(f"{N} of {N} matrices equal bit for bit")
    else:
        largest = max(float((W - W.half().float()).abs().max()) for name, W in network().items() if W.ndim == 2)
        assert evidence.startswith(
            f"{N} of {N} matrices equal within float16 rounding, largest difference {largest:.2g}"
        )
    assert (f"; {N} of {N} vectors equal" in evidence) == (names == "same")


def test_onnx_and_bfloat16(base, tmp_path):
    onnx = save_onnx(tmp_path / "net.onnx", network())
    half = save(tmp_path / "bf16.pt", {name: tensor.bfloat16() for name, tensor in network().items()})
    found = rows(htsr.survey([half, base, onnx]))
    assert found["base.safetensors"]["relation"] == "reference"
    assert found["net.onnx"]["relation"] == "same weights"
    assert "5 of 5 matrices equal bit for bit" in found["net.onnx"]["evidence"]
    assert found["bf16.pt"]["relation"] == "same weights"
    assert "5 of 5 matrices equal within bfloat16 rounding" in found["bf16.pt"]["evidence"]
    assert {row["network"] for row in found.values()} == {1}


@pytest.mark.parametrize("convolution", [(16, 9, 3), (16, 9, 3, 5)])
def test_transposed(tmp_path, convolution):
    tensors = network(shapes={"a": (40, 30), "b": (35, 35), "conv": convolution})
    keras = {
        name: tensor.permute(*range(2, tensor.ndim), 1, 0) if tensor.ndim > 1 else tensor
        for name, tensor in tensors.items()
    }
    kind, evidence = relation(save(tmp_path / "a.pt", tensors), save(tmp_path / "b.npz", keras))
    assert kind == "transposed"
    assert evidence.startswith("3 of 3 matrices equal bit for bit; 3 of them stored transposed")


@pytest.mark.parametrize("names", ["same", "others"])
def test_quantised(base, tmp_path, names):
    stored = int8(network())
    if names == "others":
        stored = {f"net.{name}": tensor for name, tensor in stored.items()}
    kind, evidence = relation(base, save(tmp_path / "model.int8.safetensors", stored))
    assert kind == "quantised"
    assert f"{N} of {N} matrices differ as quantisation makes them" in evidence
    assert "no neighbouring values in another order" in evidence
    found = rows(htsr.survey([tmp_path]))
    assert found["model.int8.safetensors"]["network"] == found["base.safetensors"]["network"]
    assert found["model.int8.safetensors"]["dtype"].startswith("int8")


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q4_0"])
def test_gguf(tmp_path, kind):
    """With names of its own, beside the float32 file and its bfloat16 copy."""
    import gguf

    tensors = {
        name: tensor for name, tensor in network(shapes={"a": (64, 96), "b": (32, 64)}).items() if tensor.ndim == 2
    }
    save(tmp_path / "base.safetensors", tensors)
    save(tmp_path / "bf16.pt", {name: tensor.bfloat16() for name, tensor in tensors.items()})
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    stored = gguf.GGMLQuantizationType[kind]
    for number, tensor in enumerate(tensors.values()):
        values = gguf.quants.quantize(tensor.numpy(), stored)
        writer.add_tensor(f"blk.{number}.ffn_up.weight", values, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    row = rows(htsr.survey(tmp_path))["q.gguf"]
    assert (row["relation"], row["dtype"]) == ("quantised", kind)
    assert row["to"].endswith("base.safetensors")
    assert "2 of 2 matrices differ as quantisation makes them" in row["evidence"]
    assert "no neighbouring values in another order" in row["evidence"]


def test_fine_tuned(base, tmp_path):
    tuned = save(tmp_path / "tuned.pt", changed(network(), 0.2, only="mixer"))
    found = htsr.survey([tuned, base])
    row = rows(found)["tuned.pt"] if rows(found)["tuned.pt"]["to"] else rows(found)["base.safetensors"]
    assert row["relation"] == "fine-tuned"
    assert "3 of 5 matrices equal bit for bit; 2 of 5 matrices changed by 0.2" in row["evidence"]
    assert found.files["family"].nunique() == 1
    assert found.files["network"].nunique() == 2
    layers = found.layers.set_index("name")
    assert dict(layers["relation"]) == {
        name: "changed" if "mixer" in name else "equal"
        for name in ("in_proj", "mixer.up", "mixer.down", "square", "head")
    }
    a, b = network(), changed(network(), 0.2, only="mixer")
    for name in ("mixer.up.weight", "mixer.down.weight"):
        expected = float((a[name] - b[name]).norm() / a[name].norm())
        assert layers.loc[name.removesuffix(".weight"), "relative_change"] == pytest.approx(expected, rel=0.05)


def test_biases_that_were_tuned(base, tmp_path):
    tuned = save(tmp_path / "tuned.pt", changed(network(), 0.2, only=".bias"))
    kind, evidence = relation(base, tuned)
    assert kind == "fine-tuned"
    assert "5 of 5 matrices equal bit for bit" in evidence
    assert "5 of 5 vectors of one name differ" in evidence


def test_a_new_head_on_a_tuned_network(base, tmp_path):
    tensors = {name: tensor for name, tensor in changed(network(), 0.05).items() if "head" not in name}
    tensors["classifier.weight"] = torch.randn(3, 48)
    kind, evidence = relation(base, save(tmp_path / "tuned.pt", tensors))
    assert kind == "fine-tuned"
    assert "4 of 5 matrices changed by 0.05" in evidence
    assert "1 without a partner; 1 more in base.safetensors" in evidence


def test_a_part_of_a_network_and_two_networks_with_a_common_part(base, tmp_path):
    body = {f"body.{name}": tensor for name, tensor in network().items() if "head" not in name}
    kind, evidence = relation(base, save(tmp_path / "body.pt", body))
    assert kind == "part of"
    assert evidence == "4 of 4 matrices equal bit for bit; 1 more in base.safetensors"
    twice = save(tmp_path / "twice.pt", network() | {"head.weight": torch.randn(11, 48)})
    assert "; also part of " in rows(htsr.survey([base, twice, tmp_path / "body.pt"]))["body.pt"]["evidence"]
    other = save(tmp_path / "other.pt", body | {"new.weight": torch.randn(7, 48)})
    kind, evidence = relation(base, other)
    assert kind == "shares weights"
    assert evidence == "4 of 5 matrices equal bit for bit; 1 without a partner; 1 more in base.safetensors"


@pytest.mark.parametrize("names", ["same", "others"])
def test_trained_anew(base, tmp_path, names):
    """The same shapes, and a fixed table in common, make no family."""
    tensors = network(seed=9) | {"square.weight": network()["square.weight"]}
    path = save(tmp_path / "anew.pt", tensors if names == "same" else renamed(tensors))
    found = htsr.survey([base, path])
    assert found.files["family"].nunique() == 2
    (row,) = found.files[found.files["to"] != ""].to_dict("records")
    assert row["relation"] == "same shapes"
    assert "1 of 5 matrices equal bit for bit; 4 of 5 matrices unrelated" in row["evidence"]
    assert set(found.layers["relation"]) == {"equal", "unrelated"}


def test_constant_matrices_make_no_family(tmp_path):
    shapes = {"a": (30, 20), "b": (20, 10)}
    zeros = {f"lora{number}.weight": torch.zeros(64, 64) for number in range(3)}
    paths = [save(tmp_path / f"{seed}.pt", network(seed, shapes) | zeros) for seed in (0, 1)]
    assert htsr.survey(paths).files["family"].nunique() == 2


def test_files_without_relatives_are_not_read(base, tmp_path, monkeypatch):
    save(tmp_path / "other.pt", network(shapes={"a": (9, 7), "b": (7, 9)}))
    monkeypatch.setattr(networks, "sample", None)
    found = htsr.survey(tmp_path)
    assert list(found.files["relation"]) == ["alone", "alone"]
    assert list(found.files["matrices"]) == [5, 2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.pt", "a.gguf", "a.onnx", "a.keras", "a.npz", "m-1-of-2.gguf", "named"]
)
def test_a_pipe_or_a_device_is_never_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / f"m{name}").symlink_to("/dev/zero")
    if name == "named":
        os.mkfifo(tmp_path / "named.safetensors")
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "named.safetensors"}}')
    (tmp_path / "z.npz").write_bytes(b"")  # of the size that a pipe claims to have
    found = rows(htsr.survey(tmp_path))
    assert all(row["reason"] for row in found.values())


@pytest.mark.parametrize(
    "name", ["a\\u0000.safetensors", "\\ud800.safetensors", "a" * 3000, "", ".", "a/../b", "/dev/zero"]
)
def test_an_index_that_names_what_no_file_system_holds(base, tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{name}"}}}}')
    found = rows(htsr.survey(tmp_path))
    assert "missing" in found["model.safetensors.index.json"]["reason"]
    assert found["base.safetensors"]["reason"] == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 3e38, 1e200, 1.7e308, 1e-42, 1e-200])
@pytest.mark.parametrize("scaled", [True, False])
def test_values_of_any_size(tmp_path, value, scaled):
    """A training that diverged leaves infinite weights, and a float32 has no square beyond 1e19."""
    tensors = network()
    save(tmp_path / "base.pt", tensors)
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    odd = {name: tensor * value if scaled else tensor.masked_fill(tensor > 0.5, value) for name, tensor in wide.items()}
    for name in ("a.pt", "b.pt"):
        save(tmp_path / name, {**odd, **({"more": torch.ones(3)} if name == "b.pt" else {})})
    found = rows(htsr.survey(tmp_path))
    assert set(found) == {"base.pt", "a.pt", "b.pt"}
    assert len({found[name]["network"] for name in ("a.pt", "b.pt")}) == 1


def test_what_cannot_be_read_is_a_row_with_a_reason(base, tmp_path):
    save(tmp_path / "good.pt", network())
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    (tmp_path / "copy.safetensors").write_bytes(b"nonsense")
    (tmp_path / "net.tflite").write_bytes(b"12345678")
    (tmp_path / "gone.pt").symlink_to(tmp_path / "nowhere")
    save(tmp_path / "args.bin", {"lr": torch.tensor(0.1)})
    save(tmp_path / "vectors.pt", {"a": torch.ones(5), "b": torch.ones(3)})
    found = rows(htsr.survey(tmp_path))
    assert len(found) == 8
    reasons = {name: row["reason"] for name, row in found.items() if row["reason"]}
    for name, reason in {
        "bad.safetensors": "not a readable safetensors file", "copy.safetensors": "not a readable safetensors file",
        "net.tflite": "tf2onnx", "gone.pt": "symbolic link", "args.bin": "no weight matrix", "vectors.pt": "2 x 1-D",
    }.items():  # fmt: skip
        assert reason in reasons.pop(name)
    assert not reasons
    assert found["copy.safetensors"]["relation"] == "same bytes"
    assert pd.isna(found["gone.pt"]["family"])
    assert found["good.pt"]["relation"] == "same weights"


def test_what_a_reader_stumbles_over_is_a_reason(base, tmp_path, monkeypatch):
    odd = save(tmp_path / "odd.pt", network())
    split = networks.split_into_layers

    def stumbling(listing, splitting):
        if listing.source == str(odd):
            raise KeyError("surprise")
        return split(listing, splitting)

    monkeypatch.setattr(networks, "split_into_layers", stumbling)
    found = rows(htsr.survey(tmp_path))
    assert "KeyError: 'surprise'" in found["odd.pt"]["reason"]
    assert found["base.safetensors"]["relation"] == "alone"


def test_a_matrix_that_cannot_be_read(base, tmp_path):
    """The rest of a truncated file is compared, and the row says what is missing."""
    path = save(tmp_path / "copy.npz", network())
    data = bytearray(path.read_bytes())
    place = data.index(network()["square.weight"].numpy().tobytes())
    data[place : place + 400] = bytes(400)  # the checksum of the archive then fails
    path.write_bytes(data)
    row = rows(htsr.survey([base, path]))["copy.npz"]
    assert row["reason"].startswith("1 matrix cannot be read")
    assert "4 of 5 matrices equal bit for bit; " in row["evidence"]


def test_links_and_copies(base, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(base)
    (tmp_path / "w.safetensors").write_bytes(base.read_bytes())
    found = rows(htsr.survey([tmp_path, base]))
    assert {name: row["relation"] for name, row in found.items()} == {
        "base.safetensors": "reference",
        "link.safetensors": "same file",
        "w.safetensors": "same bytes",
    }
    assert {row["parameters"] for row in found.values()} == {sum(tensor.numel() for tensor in network().values())}


def test_checkpoints_of_a_run_are_a_chain_and_each_is_compared_once(tmp_path, monkeypatch):
    tensors, compared = network(), []
    for step in range(7):
        save(tmp_path / f"step{step}.pt", tensors)
        tensors = changed(tensors, 0.1, seed=step)
    relate = families.relate
    monkeypatch.setattr(families, "relate", lambda *arguments: compared.append(1) or relate(*arguments))
    found = rows(htsr.survey(tmp_path))
    assert len(compared) == 6
    for step in range(1, 7):
        row = found[f"step{step}.pt"]
        assert row["to"].endswith(f"step{step - 1}.pt")
        assert row["relation"] == "fine-tuned"


def test_several_families_at_once(tmp_path):
    """Every variant finds its own network among others of the same shapes."""
    for seed in range(3):
        tensors = network(seed)
        save(tmp_path / f"{seed}.safetensors", tensors)
        save(tmp_path / f"{seed}.fp16.pt", {name: tensor.half() for name, tensor in renamed(tensors).items()})
        save(tmp_path / f"{seed}.int8.safetensors", int8(tensors))
        save(tmp_path / f"{seed}.tuned.npz", changed(tensors, 0.1))
    found = htsr.survey(tmp_path)
    assert len(found.families) == 3
    assert list(found.families["files"]) == [4, 4, 4]
    assert list(found.families["networks"]) == [2, 2, 2]
    for name, row in rows(found).items():
        assert row["family"] == 1 + int(name[0])
        assert (
            row["relation"]
            in {"r": "reference same shapes", "f": "same weights", "i": "quantised", "t": "fine-tuned"}[
                {"safetensors": "r", "fp16": "f", "int8": "i", "tuned": "t"}[name.split(".")[1]]
            ]
        )


def test_text_files_and_arguments(base, tmp_path):
    save(tmp_path / "half.pt", {name: tensor.half() for name, tensor in network().items()})
    (tmp_path / "x.tflite").write_bytes(b"1234")
    found = htsr.survey(str(tmp_path))
    text = repr(found)
    assert text.startswith("3 weight files: 1 network in 1 family; 1 cannot be read\n\nfamily 1: 2 files, 1 network\n")
    assert "same weights as base.safetensors\n      5 of 5 matrices equal within float16 rounding" in text
    assert "not read: 1 file\n" in text
    assert str(tmp_path) not in text  # paths begin where they differ
    assert "<table" in found._repr_html_()
    assert len(found) == 3

    document = json.loads(found.save(tmp_path / "s.json").read_text())
    assert [row["relation"] for row in document["files"]] == ["reference", "same weights", ""]
    assert document["families"][0]["files"] == 2
    assert len(document["layers"]) == N
    assert list(pd.read_csv(found.save(tmp_path / "s.csv"))["size"]) == list(found.files["size"])
    assert len(pd.read_parquet(found.save(tmp_path / "s.parquet"))) == 3
    page = found.save(tmp_path / "s.html").read_text()
    assert "Family 1" in page
    assert "tf2onnx" in page
    with pytest.raises(InputError, match="expected a suffix"):
        found.save(tmp_path / "s.docx")


def test_names_from_strangers_are_shown_safely(tmp_path):
    for name in ("a\x1b[31m.pt", "b<b>.pt"):
        save(tmp_path / name, network(shapes={"x\ny": (20, 10), "<i>": (10, 20)}))
    found = htsr.survey(tmp_path)
    assert "\x1b" not in repr(found)
    page = found.save(tmp_path / "s.html").read_text()
    assert "\x1b" not in page
    assert "<b>.pt" not in page


def test_inputs_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="no weight file found"):
        htsr.survey(tmp_path)
    with pytest.raises(InputError, match="an empty list"):
        htsr.survey([])
    with pytest.raises(FileNotFoundError, match="no installed package"):
        htsr.survey(tmp_path / "missing")
    with pytest.raises(InputError, match="got a URL: download it first"):
        htsr.survey("https://example.org/model.safetensors")
    with pytest.raises(TypeError, match="ndarray"):
        htsr.survey([np.ones((3, 3))])
    save(tmp_path / "sub" / "a.pt", network())
    (tmp_path / "nothing").mkdir()
    assert "no weight file in" in repr(htsr.survey([tmp_path / "sub", tmp_path / "nothing"]))
