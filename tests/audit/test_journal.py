"""The journal: an interrupted audit goes on where it was, another one is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr.audit import jobs
from htsr.audit.journal import Journal
from htsr.cli import main
from htsr.errors import InputError


@pytest.fixture
def file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = {f"w{i}.weight": torch.randn(60 + i, 50, generator=generator) for i in range(6)}
    weights["w5.weight"][0, 0] = torch.nan
    save_file(weights, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def interrupt_after(monkeypatch, count):
    """Ctrl-C while the layer after so many is analysed."""
    names = []

    def counting(real):
        def analyze(layer, *args, **options):
            if len(names) == count:
                raise KeyboardInterrupt
            names.append(layer.name)
            return real(layer, *args, **options)

        return analyze

    for step in (
        "analyze_layer",
        "analyze_eigenvalues",
        "failed_layer",
    ):  # one thread, or several; what has no spectrum
        monkeypatch.setattr(jobs, step, counting(getattr(jobs, step)))
    return names


@pytest.mark.parametrize("options", [{}, {"bootstrap": 20, "randomize": True}, {"convention": "weightwatcher"}])
def test_only_what_is_missing_is_analysed(file, tmp_path, monkeypatch, options):
    whole = htsr.analyze(file, **options)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            htsr.analyze(file, journal=tmp_path / "kept", **options)
    names = interrupt_after(monkeypatch, 99)
    resumed = htsr.analyze(file, journal=tmp_path / "kept", **options)
    assert names == ["w4", "w5"]
    pd.testing.assert_frame_equal(resumed.details, whole.details)
    assert repr(resumed["w0"].fit) == repr(whole["w0"].fit)
    assert resumed["w0"].bulk.spike_threshold == whole["w0"].bulk.spike_threshold
    assert (whole["w0"].shuffled is not None) == options.get("randomize", False)
    assert np.array_equal(*(np.asarray(a["w0"].shuffled) for a in (resumed, whole)))
    names.clear()
    again = htsr.analyze(file, journal=tmp_path / "kept", **options)
    assert names == []
    assert again["w5"].spectrum is None
    pd.testing.assert_frame_equal(again.details, whole.details)


def test_another_audit_is_refused(file, tmp_path):
    htsr.analyze(file, journal=tmp_path / "kept")
    with pytest.raises(InputError, match="differs in seed;"):
        htsr.analyze(file, journal=tmp_path / "kept", seed=1)
    with pytest.raises(InputError, match="differs in layers;"):
        htsr.analyze(file, journal=tmp_path / "kept", layers="w1")
    with pytest.raises(InputError, match="expected the folder of an interrupted audit"):
        htsr.analyze(file, journal=tmp_path)


def test_a_changed_file_is_another_audit(file, tmp_path):
    htsr.analyze(file, journal=tmp_path / "kept")
    save_file({f"w{i}.weight": torch.randn(60 + i, 50) for i in range(6)}, file)
    with pytest.raises(InputError, match="differs in files;"):
        htsr.analyze(file, journal=tmp_path / "kept")


def test_a_damaged_part_is_analysed_again(file, tmp_path, monkeypatch):
    whole = htsr.analyze(file, journal=tmp_path / "kept")
    (tmp_path / "kept" / "000002.npz").write_bytes(b"PK half")
    names = interrupt_after(monkeypatch, 99)
    pd.testing.assert_frame_equal(htsr.analyze(file, journal=tmp_path / "kept").details, whole.details)
    assert names == ["w2"]


def test_resume_on_the_command_line(file, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.csv"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert main(["audit", str(file), "-o", str(out)]) == 130
    assert "--resume" in capsys.readouterr().err
    assert not out.exists()
    names = interrupt_after(monkeypatch, 99)
    assert main(["audit", str(file), "-o", str(out), "--resume"]) == 0
    assert names == ["w3", "w4", "w5"]
    assert len(pd.read_csv(out)) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "m.safetensors"]
    with pytest.raises(SystemExit, match="2"):
        main(["audit", str(file), "--resume"])
    assert "needs the -o FILE" in capsys.readouterr().err


def test_without_resume_it_begins_anew(file, tmp_path, monkeypatch):
    out = tmp_path / "a.csv"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        main(["audit", str(file), "-o", str(out)])
    names = interrupt_after(monkeypatch, 99)
    assert main(["audit", str(file), "-o", str(out), "--seed", "1"]) == 0
    assert len(names) == 6


def test_kill_9(tmp_path):
    generator = torch.Generator().manual_seed(0)
    file, out = tmp_path / "m.safetensors", tmp_path / "a.json"
    save_file({f"w{i:02d}.weight": torch.randn(400, 300, generator=generator) for i in range(40)}, file)
    command = [sys.executable, "-m", "htsr", "audit", str(file), "-o", str(out), "--randomize"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = tmp_path / "a.json.htsr-journal"
    while len(list(kept.glob("0*.npz"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    result = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    assert "of 40 layers were already analysed" in result.stderr
    assert not kept.exists()
    assert out.stat().st_size > 10_000


def test_a_model_in_memory_has_no_journal(tmp_path):
    with pytest.raises(InputError, match="needs a source of files"):
        htsr.analyze({"w": torch.randn(20, 20)}, journal=tmp_path / "kept")


def test_journal_and_output_inside_the_audited_directory(file, monkeypatch):
    folder = file.parent
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert main(["audit", str(folder), "-o", str(folder / "a.csv")]) == 130
    monkeypatch.chdir(folder)
    names = interrupt_after(monkeypatch, 99)
    assert main(["audit", ".", "-o", "a.csv", "--resume", "--device", "cpu"]) == 0
    assert names == ["w3", "w4", "w5"]


def adapter_and_base(folder):
    pytest.importorskip("peft")
    adapter, base = folder / "adapter", folder / "base.safetensors"
    adapter.mkdir()
    torch.manual_seed(0)
    save_file({"w.weight": torch.randn(40, 30)}, base)
    save_file(
        {
            "base_model.model.w.lora_A.weight": torch.randn(4, 30),
            "base_model.model.w.lora_B.weight": torch.randn(40, 4),
        },
        adapter / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["w"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return adapter, {"base": base}


def checkpoint(folder):
    torch.manual_seed(0)
    (folder / "m").mkdir()
    save_file({"w.weight": torch.randn(40, 30), "v.weight": torch.randn(30, 20)}, folder / "m" / "model.safetensors")
    (folder / "m" / "config.json").write_text('{"model_type": "bert", "num_attention_heads": 2}')
    return folder / "m", {}


def graph_with_external_data(folder):
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(rng.normal(size=(40, 30)).astype("float32"), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:], [weight]))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="values.bin", size_threshold=0)
    return folder / "m.onnx", {}


def change_byte(path, at=-40):
    """Change one byte in the middle of values; size and time of change stay the same for who looks at these alone."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("make", "touched"),
    [
        (checkpoint, "m/model.safetensors"),
        (checkpoint, "m/config.json"),
        (graph_with_external_data, "values.bin"),
        (graph_with_external_data, "m.onnx"),
        (adapter_and_base, "base.safetensors"),
        (adapter_and_base, "adapter/adapter_model.safetensors"),
        (adapter_and_base, "adapter/adapter_config.json"),
    ],
)
def test_other_content_of_any_file_that_was_read_is_another_audit(tmp_path, make, touched):
    source, options = make(tmp_path)
    htsr.analyze(source, journal=tmp_path / "kept", **options)
    htsr.analyze(source, journal=tmp_path / "kept", **options)  # which is the same audit
    file = tmp_path / touched
    if file.suffix == ".json":
        file.write_text(file.read_text().replace(": 2", ": 3").replace(": 8", ": 9"))
    elif file.suffix == ".onnx":
        file.write_bytes(file.read_bytes().replace(b"MatMul", b"matmul"))
    else:
        change_byte(file)
    with pytest.raises(InputError, match=r"differs in files[;,]"):
        htsr.analyze(source, journal=tmp_path / "kept", **options)


def test_a_copy_elsewhere_of_a_remote_checkpoint_is_compared_by_content(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store, address = fsspec.filesystem("memory"), "memory://journal/m.safetensors"

    def upload(seed):
        torch.manual_seed(seed)
        save_file({"w.weight": torch.randn(40, 30)}, tmp_path / "m.safetensors")
        store.pipe_file("/journal/m.safetensors", (tmp_path / "m.safetensors").read_bytes())

    upload(0)
    first = htsr.analyze(address, journal=tmp_path / "kept")
    again = htsr.analyze(address, journal=tmp_path / "kept")
    pd.testing.assert_frame_equal(first.details, again.details)
    upload(1)
    with pytest.raises(InputError, match="differs in files;"):
        htsr.analyze(address, journal=tmp_path / "kept")


def before_a_layer_is_kept(monkeypatch, number, act):
    """Do something after so many layers were analysed, before the last of them is kept."""
    real, seen = Journal.add, []

    def add(journal, result):
        seen.append(result.name)
        if len(seen) == number:
            act()
        real(journal, result)

    monkeypatch.setattr(Journal, "add", add)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_file_that_changes_while_it_is_audited_is_named_and_no_mixed_row_is_kept(file, tmp_path, monkeypatch, after):
    before_a_layer_is_kept(monkeypatch, after, lambda: change_byte(file))
    with pytest.raises(InputError, match=r"m.safetensors: the file changed while it was audited"):
        htsr.analyze(file, journal=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.npz"))) == after - 1
    if after > 1:  # those rows were read before the change, from what is there no more
        with pytest.raises(InputError, match="differs in files;"):
            htsr.analyze(file, journal=tmp_path / "kept")


def test_a_change_that_shows_in_the_content_alone_is_found_at_the_end(file, tmp_path, monkeypatch):
    before_a_layer_is_kept(monkeypatch, 2, lambda: change_byte(file))
    monkeypatch.setattr("htsr.audit.files_read._stamp_of", lambda status: (0,))
    with pytest.raises(InputError, match=r"m.safetensors: the file changed while it was audited"):
        htsr.analyze(file, journal=tmp_path / "kept")
    assert not list(tmp_path.glob("kept/*.npz"))


def test_a_file_that_goes_while_it_is_audited_is_named(file, tmp_path, monkeypatch):
    before_a_layer_is_kept(monkeypatch, 2, file.unlink)
    with pytest.raises(InputError, match=r"m.safetensors: the file changed while it was audited"):
        htsr.analyze(file, journal=tmp_path / "kept")


def test_a_file_that_is_only_touched_is_the_same(file, tmp_path, monkeypatch):
    before_a_layer_is_kept(monkeypatch, 3, file.touch)
    assert len(htsr.analyze(file, journal=tmp_path / "kept")) == 6


def test_a_base_in_memory_has_no_journal(tmp_path):
    source, _ = adapter_and_base(tmp_path)
    with pytest.raises(InputError, match="needs a source of files"):
        htsr.analyze(source, base={"w.weight": torch.randn(40, 30)}, journal=tmp_path / "kept")


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("name", ["a.csv.partial", "a.csv.htsr-journal", "a.csv.htsr-journal/audit.json"])
def test_no_file_of_the_user_is_deleted(file, tmp_path, capsys, name, resume):
    """Whatever it is called, and whether it is the folder itself or lies in it."""
    theirs = tmp_path / name / "thesis.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    status = main(["audit", str(file), "-o", str(tmp_path / "a.csv"), *resume])
    assert theirs.read_text() == "years of work"
    if name == "a.csv.partial":
        assert status == 0
    else:
        assert status == 2
        assert "expected the folder of an interrupted audit or a new one" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "link", "file with the name of ours"])
def test_what_is_no_journal_is_refused_and_stays(file, tmp_path, kind):
    place = tmp_path / "a.csv.htsr-journal"
    if kind == "file":
        place.write_text("mine")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    else:
        place.mkdir()
        (place / "000001.npz").write_text("mine")
    assert main(["audit", str(file), "-o", str(tmp_path / "a.csv")]) == 2
    if kind == "file":
        assert place.read_text() == "mine"
    elif kind == "link":
        assert list((tmp_path / "elsewhere").iterdir()) == []
    else:
        assert (place / "000001.npz").read_text() == "mine"


def test_a_file_put_into_a_journal_meanwhile_stays(file, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        main(["audit", str(file), "-o", str(tmp_path / "a.csv")])
    kept = tmp_path / "a.csv.htsr-journal"
    (kept / "notes.txt").write_text("mine")
    assert main(["audit", str(file), "-o", str(tmp_path / "a.csv")]) == 2
    assert len(list(kept.glob("*.npz"))) == 3
    assert (kept / "notes.txt").read_text() == "mine"


def test_two_audits_with_one_output(file, tmp_path, monkeypatch, capsys):
    """The second, which begins in the midst of the first, is refused; the first ends as if it had been alone."""
    out, statuses = tmp_path / "a.csv", []

    def begin_another():
        statuses.extend(main(["audit", str(file), "-o", str(out), *more]) for more in ([], ["--resume"]))

    before_a_layer_is_kept(monkeypatch, 3, begin_another)
    assert main(["audit", str(file), "-o", str(out)]) == 0
    assert statuses == [2, 2]
    assert "another audit keeps its layers there" in capsys.readouterr().err
    assert len(pd.read_csv(out)) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "m.safetensors"]


def test_bad_input_leaves_no_folder(tmp_path):
    (tmp_path / "no.safetensors").write_bytes(b"no checkpoint")
    for name in ("no.safetensors", "missing.safetensors"):
        assert main(["audit", str(tmp_path / name), "-o", str(tmp_path / "a.csv")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["no.safetensors"]


def test_any_flipped_bit_of_a_journal_is_noticed(file, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    whole = htsr.analyze(file, journal=kept)
    draw, files = random.Random(0), sorted(kept.iterdir())
    names = interrupt_after(monkeypatch, 99)
    for _ in range(30):
        path = draw.choice(files)
        before = path.read_bytes()
        flipped = bytearray(before)
        bit = draw.randrange(8 * len(before))
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        names.clear()
        if path.name == "audit.json":
            with pytest.raises(InputError, match="holds another audit"):
                htsr.analyze(file, journal=kept)
            path.write_bytes(before)
        else:
            pd.testing.assert_frame_equal(htsr.analyze(file, journal=kept).details, whole.details)
            assert len(names) == (path.suffix == ".npz")
