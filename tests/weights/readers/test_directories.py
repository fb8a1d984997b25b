"""The files that make up a checkpoint: an index names them, a well-known name, or numbers; the rest is listed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr import InputError
from htsr.weights import open_source


def state(count=2, prefix="layers", shape=(24, 16)):
    return {f"{prefix}.{k}.weight": torch.randn(shape) for k in range(count)}


def names(path):
    return [layer.name for layer in open_source(path).layers]


def skipped(path):
    return {item.name: item.reason for item in open_source(path).skipped}


def index(path, weight_map, name="model.safetensors.index.json"):
    (path / name).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "beside", ["consolidated.safetensors", "model.fp16.safetensors", "extra.safetensors", "pytorch_model.bin"]
)
@pytest.mark.parametrize("shard", ["model-00001-of-00001.safetensors", "part.safetensors"])
def test_the_index_names_the_shards_and_other_files_are_listed(tmp_path, beside, shard):
    tensors = state()
    save_file(tensors, tmp_path / shard)
    index(tmp_path, dict.fromkeys(tensors, shard))
    same = {f"other.{k}": v.clone() for k, v in tensors.items()}
    torch.save(same, tmp_path / beside) if beside.endswith("bin") else save_file(same, tmp_path / beside)
    assert names(tmp_path) == ["layers.0", "layers.1"]
    assert "pass this file" in skipped(tmp_path)[beside]


def test_of_several_indices_that_without_a_variant_is_read(tmp_path):
    for variant in ("", ".fp16", ".non_ema"):
        shard = f"model{variant}-00001-of-00001.safetensors"
        save_file(state(), tmp_path / shard)
        index(tmp_path, dict.fromkeys(state(), shard), f"model.safetensors.index{variant}.json")
    index(
        tmp_path, dict.fromkeys(state(), "model.fp16-00001-of-00001.safetensors"), "model.fp16.safetensors.index.json"
    )
    assert names(tmp_path) == ["layers.0", "layers.1"]
    assert "model.fp16-00001-of-00001.safetensors" in skipped(tmp_path)


@pytest.mark.parametrize("name", ["model", "diffusion_pytorch_model", "open_clip_model"])
def test_a_well_known_name_comes_first(tmp_path, name):
    save_file(state(), tmp_path / f"{name}.safetensors")
    save_file(state(3, "same"), tmp_path / f"{name}.fp16.safetensors")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    assert names(tmp_path) == ["layers.0", "layers.1"]
    assert set(skipped(tmp_path)) == {f"{name}.fp16.safetensors", "optimizer.pt"}


@pytest.mark.parametrize("hidden", ["._model.safetensors", ".model.safetensors.tmp.safetensors", "._pytorch_model.bin"])
def test_hidden_files_are_no_shards(tmp_path, hidden):
    save_file(state(), tmp_path / "model.safetensors")
    (tmp_path / hidden).write_bytes(b"\x00\x05\x16\x07" + bytes(200))
    assert names(tmp_path) == ["layers.0", "layers.1"]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_shard_is_named(tmp_path, missing):
    for i in range(1, 4):
        if i != missing:
            save_file(state(1, f"l{i}"), tmp_path / f"model-{i:05d}-of-00003.safetensors")
    with pytest.raises(InputError, match=f"1 of 3 shards are missing: model-0000{missing}-of-00003"):
        open_source(tmp_path)


def test_a_name_that_promises_too_many_shards_is_refused(tmp_path):
    save_file(state(), tmp_path / "m-1-of-999999.safetensors")
    with pytest.raises(InputError, match="999,999 shards"):
        open_source(tmp_path)


def test_shards_of_other_names_are_taken_together(tmp_path):
    save_file(state(1, "a"), tmp_path / "first.safetensors")
    save_file(state(1, "b"), tmp_path / "second.safetensors")
    assert names(tmp_path) == ["a.0", "b.0"]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("part", [1, 2])
def test_a_split_gguf_is_found_from_any_part(tmp_path, count, part):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    for i in range(count):
        writer = gguf.GGUFWriter(tmp_path / f"m-{i + 1:05d}-of-{count:05d}.gguf", "llama")
        writer.add_tensor(f"blk.{i}.attn_q.weight", np.random.default_rng(i).normal(size=(32, 16)).astype("f4"))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    expected = [f"blk.{i}.attn_q" for i in range(count)]
    assert names(tmp_path) == expected
    assert names(tmp_path / f"m-{part:05d}-of-{count:05d}.gguf") == expected
    (tmp_path / f"m-00001-of-{count:05d}.gguf").unlink()
    with pytest.raises(InputError, match="shards are missing"):
        open_source(tmp_path / f"m-00002-of-{count:05d}.gguf")


def test_the_modules_of_a_sentence_transformer(tmp_path):
    save_file(state(), tmp_path / "model.safetensors")
    for folder in ("1_Pooling", "2_Dense", "3_Normalize"):
        (tmp_path / folder).mkdir()
    save_file({"linear.weight": torch.randn(20, 16)}, tmp_path / "2_Dense" / "model.safetensors")
    modules = [{"idx": i, "path": path} for i, path in enumerate(["", "1_Pooling", "2_Dense", "3_Normalize"])]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert names(tmp_path) == ["layers.0", "layers.1", "2_Dense.linear"]
    assert len(htsr.analyze(tmp_path, bulk=False)) == 3


def test_the_parts_of_a_pipeline(tmp_path):
    for folder in ("unet", "vae", "scheduler"):
        (tmp_path / folder).mkdir()
    save_file(state(1), tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(state(1), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    about = {"_class_name": "X", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"], "scheduler": ["diffusers", "S"]}
    (tmp_path / "model_index.json").write_text(json.dumps(about))
    assert names(tmp_path) == ["unet.layers.0", "vae.layers.0"]


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "a/../../b"])
def test_a_part_outside_the_directory_is_refused(tmp_path, folder):
    (tmp_path / "modules.json").write_text(json.dumps([{"path": folder}]))
    with pytest.raises(InputError, match="inside the directory"):
        open_source(tmp_path)


@pytest.mark.parametrize("folders", [["."], ["./"], ["a", "./a", "a/.", "a/"], ["", "a", "."], ["a", "link", "link/a"]])
def test_parts_that_name_themselves(tmp_path, folders):
    """A file of modules may name its own folder, in any spelling, and links can put a folder into itself."""
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(".")
    for place in (tmp_path, tmp_path / "a"):
        save_file(state(1), place / "model.safetensors")
        (place / "modules.json").write_text(json.dumps([{"path": folder} for folder in folders]))
    found = names(tmp_path)
    assert len(found) == len(set(found)) == len({Path(folder) for folder in folders})
    assert set(found) <= {"layers.0", "a.layers.0", "link.layers.0", "link.a.layers.0"}


@pytest.mark.parametrize("name", ["m-0-of-0", "m-00000-of-00000", "m-1-of-0", "m-1-of-999999"])
@pytest.mark.parametrize("suffix", ["gguf", "safetensors"])
def test_a_number_of_shards_that_no_checkpoint_has(tmp_path, name, suffix):
    (tmp_path / f"{name}.{suffix}").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match="no checkpoint has"):
        open_source(tmp_path)
    assert list(htsr.survey(tmp_path).files["reason"] != "") == [True]


@pytest.mark.parametrize("index", ["._model.safetensors.index.json", ".model.safetensors.index.json"])
def test_a_hidden_index_is_no_index(tmp_path, index):
    """macOS leaves a file of its own, with a hidden name, beside every file that it copies to some file systems."""
    save_file(state(1), tmp_path / "model.safetensors")
    (tmp_path / index).write_bytes(b"\0\5\x16\7")
    assert names(tmp_path) == ["layers.0"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', "[[]]", "9" * 5000])
def test_a_broken_list_of_modules_is_an_input_error(tmp_path, content):
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(InputError, match=r"modules.json"):
        open_source(tmp_path)


@pytest.mark.parametrize("folder", ["", "global_step100"])
def test_deepspeeds_parts_are_refused_with_the_way_out(tmp_path, folder):
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    torch.save({}, place / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
    torch.save({"module": {}}, place / "mp_rank_00_model_states.pt")
    with pytest.raises(InputError, match="zero_to_fp32"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "m.gguf", "m.onnx", "m.pt"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")
    with pytest.raises(InputError, match="git lfs pull"):
        open_source(tmp_path / name)
    with pytest.raises(InputError, match="git lfs pull"):
        open_source(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_tensor_that_the_index_names_and_no_shard_holds_is_listed(tmp_path, suffix):
    shard = f"w-00001-of-00001.{suffix}"
    save_file(state(), tmp_path / shard) if suffix == "safetensors" else torch.save(state(), tmp_path / shard)
    index(tmp_path, dict.fromkeys([*state(), "head.weight"], shard), f"model.{suffix}.index.json")
    assert names(tmp_path) == ["layers.0", "layers.1"]
    assert skipped(tmp_path) == {"head.weight": "the index names it, but no shard holds it"}


def test_an_index_that_is_a_pointer_of_git_lfs_is_named(tmp_path):
    save_file(state(), tmp_path / "model.safetensors")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
    (tmp_path / "model.safetensors.index.json").write_text(pointer)
    with pytest.raises(InputError, match="git lfs pull"):
        open_source(tmp_path)


def test_parts_without_weights_and_files_beside_a_pipeline_are_listed(tmp_path):
    for folder in ("unet", "scheduler"):
        (tmp_path / folder).mkdir()
    save_file(state(1), tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(state(1), tmp_path / "pruned.safetensors")
    parts = {"unet": ["d", "U"], "vae": ["d", "V"], "scheduler": ["d", "DDIMScheduler"], "safety_checker": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    assert names(tmp_path) == ["unet.layers.0"]
    assert set(skipped(tmp_path)) == {"vae", "pruned.safetensors"}


@pytest.mark.parametrize(("kind", "lost"), [("Dense", True), ("WeightedLayerPooling", True), ("Pooling", False)])
def test_a_module_that_should_have_weights_is_listed_without_them(tmp_path, kind, lost):
    save_file(state(), tmp_path / "model.safetensors")
    modules = [{"path": ""}, {"path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"}, {"path": "2_N"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert set(skipped(tmp_path)) == {"2_N", *([f"1_{kind}"] if lost else [])}


@pytest.mark.parametrize("place", ["", "0_Router"])
@pytest.mark.parametrize("file", ["router_config.json", "config.json"])
def test_the_modules_among_which_a_router_chooses(tmp_path, place, file):
    for route in ("query_0_Static", "document_0_Transformer"):
        (tmp_path / place / route).mkdir(parents=True)
        save_file(state(1), tmp_path / place / route / "model.safetensors")
    types = {"query_0_Static": "a.B", "document_0_Transformer": "a.C"}
    (tmp_path / place / file).write_text(json.dumps({"types": types}))
    (tmp_path / "modules.json").write_text(json.dumps([{"path": place}]))
    prefix = f"{place}." if place else ""
    assert names(tmp_path) == [f"{prefix}query_0_Static.layers.0", f"{prefix}document_0_Transformer.layers.0"]


@pytest.mark.parametrize("below", ["original", "checkpoint-500", "iter_0000010/mp_rank_00", "snapshots/0a1b"])
def test_checkpoints_below_a_directory_are_named(tmp_path, below):
    (tmp_path / below).mkdir(parents=True)
    torch.save(state(), tmp_path / below / "consolidated.00.pth")
    (tmp_path / ".cache").mkdir()
    save_file(state(), tmp_path / ".cache" / "model.safetensors")
    with pytest.raises(InputError, match=f"pass one of {below}$"):
        open_source(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["consolidated.{:02d}.pth", "mp_rank_{:02d}/model_optim_rng.pt"])
def test_a_part_of_every_weight_says_so(tmp_path, count, name):
    for part in range(count):
        path = tmp_path / name.format(part)
        path.parent.mkdir(exist_ok=True)
        torch.save(state(), path)
    note = open_source(path).layers[0].note
    assert note == ("" if count == 1 else f"a part of the weight, which is cut over {count} files")
    if name.startswith("consolidated") and count > 1:
        with pytest.raises(InputError, match=f"{count} parts"):
            open_source(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_beside_deepspeeds_parts_are_read(tmp_path, name):
    (tmp_path / "global_step8").mkdir()
    torch.save({}, tmp_path / "global_step8" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    tensors = state() | {"placeholder.weight": torch.zeros(0)}
    save_file(tensors, tmp_path / name) if name.endswith("safetensors") else torch.save(tensors, tmp_path / name)
    assert names(tmp_path) == ["layers.0", "layers.1"]
    assert "zero_to_fp32" in skipped(tmp_path)["placeholder.weight"]


@pytest.mark.parametrize("kind", ["model", "optim"])
def test_a_file_of_one_rank_of_zero_is_refused(tmp_path, kind):
    path = tmp_path / f"bf16_zero_pp_rank_3_mp_rank_00_{kind}_states.pt"
    torch.save({"module": state()}, path)
    with pytest.raises(InputError, match="zero_to_fp32"):
        open_source(path)


@pytest.mark.parametrize(("beside", "read"), [(1, True), (3, False)])
def test_matrices_beside_the_only_mapping_of_tensors(beside, read):
    source = {"weights": state(2)} | {f"pca{k}": torch.randn(6, 5) for k in range(beside)}
    found = [layer.name for layer in open_source(source).layers]
    assert found == (["layers.0", "layers.1"] if read else ["pca0", "pca1", "pca2"])
    assert len(open_source(source).skipped) == 1
