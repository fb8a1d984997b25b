"""Distributed checkpoints: shards are assembled exactly, and what does not cover a tensor exactly is not read."""

import pickle
import random
from dataclasses import replace

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

import htsr
from htsr.weights import open_source
from htsr.weights.readers.torch.distributed import Shard, _cover_once


def write(path, tensors, boxes):
    """Write tensors in boxes of our choice, ``{name: [(offsets, sizes), ...]}``, as many ranks would."""
    metadata = None
    for name, tensor in tensors.items():
        for number, (offsets, sizes) in enumerate(boxes[name]):
            part = tensor[tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))].clone()
            dcp.save({name: part}, checkpoint_id=path / "part", no_dist=True)
            said = pickle.loads((path / "part" / ".metadata").read_bytes())
            (info,) = said.storage_data.values()
            file = f"__{number}_{name}.distcp"
            (path / file).write_bytes((path / "part" / info.relative_path).read_bytes())
            about = said.state_dict_metadata[name]
            metadata = metadata or replace(said, state_dict_metadata={}, storage_data={}, planner_data=None)
            whole = metadata.state_dict_metadata.setdefault(name, replace(about, size=tensor.shape, chunks=[]))
            whole.chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            metadata.storage_data[MetadataIndex(name, torch.Size(offsets))] = replace(info, relative_path=file)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return metadata


def save(path, metadata):
    (path / ".metadata").write_bytes(pickle.dumps(metadata))


ROWS = [((0, 0), (20, 30)), ((20, 0), (25, 30)), ((45, 0), (15, 30))]
GRID = [((i, j), (30, 15)) for i in (0, 30) for j in (0, 15)]
UNEVEN = [((0, 0), (60, 10)), ((0, 10), (25, 20)), ((25, 10), (35, 20))]


@pytest.mark.parametrize("boxes", [ROWS, GRID, UNEVEN], ids=["rows", "grid", "uneven"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_shards_of_any_shape_make_up_the_tensor(tmp_path, boxes, dtype):
    W = torch.randn(60, 30).to(dtype)
    write(tmp_path, {"w": W}, {"w": boxes})
    (layer,) = open_source(tmp_path).layers
    assert torch.equal(layer.load().float(), W.float())


def test_experts_are_read_from_the_shards_that_hold_them(tmp_path):
    W = torch.randn(6, 20, 10)
    write(tmp_path, {"experts": W}, {"experts": [((0, 0, 0), (4, 20, 10)), ((4, 0, 0), (2, 20, 10))]})
    for i, layer in enumerate(open_source(tmp_path).layers):
        assert torch.equal(layer.load(), W[i])


def changed(metadata, kind):
    about, stored = metadata.state_dict_metadata["w"], metadata.storage_data
    index, info = next(iter(stored.items()))
    match kind:
        case "overlap and hole":  # the number of elements is right
            about.chunks[1] = replace(about.chunks[1], offsets=torch.Size((10, 0)))
            stored[MetadataIndex("w", torch.Size((10, 0)))] = stored.pop(MetadataIndex("w", torch.Size((20, 0))))
        case "outside":
            about.chunks[2] = replace(about.chunks[2], offsets=torch.Size((50, 0)))
            stored[MetadataIndex("w", torch.Size((50, 0)))] = stored.pop(MetadataIndex("w", torch.Size((45, 0))))
        case "missing":
            del about.chunks[1]
        case "elsewhere":
            stored[index] = replace(info, relative_path=f"../{info.relative_path}")
        case "absolute":
            stored[index] = replace(info, relative_path="/etc/passwd")
        case "too far":
            stored[index] = replace(info, offset=10**9)
        case "negative":
            stored[index] = replace(info, offset=-5)
        case "not said":
            del stored[index]
        case "too large":
            metadata.state_dict_metadata["w"] = replace(about, size=torch.Size((2**40, 30)))
    return metadata


@pytest.mark.parametrize(
    "kind",
    ["overlap and hole", "outside", "missing", "elsewhere", "absolute", "too far", "negative", "not said", "too large"],
)
def test_what_does_not_make_up_the_tensor_is_skipped(tmp_path, kind):
    save(tmp_path, changed(write(tmp_path, {"w": torch.randn(60, 30)}, {"w": ROWS}), kind))
    analysis = htsr.analyze(tmp_path, bulk=False)
    assert not len(analysis)
    assert list(analysis.skipped["name"]) == ["w"]
    assert "shard" in analysis.skipped["reason"][0]


def test_a_shard_that_links_out_of_the_directory_is_not_read(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    write(checkpoint, {"w": torch.randn(60, 30)}, {"w": ROWS})
    shard = checkpoint / "__0_w.distcp"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert "not in the directory" in htsr.analyze(checkpoint).skipped["reason"][0]


@pytest.mark.parametrize(
    "part", [torch.zeros(20, 29), torch.zeros(20, 30, dtype=torch.float64), {"w": torch.zeros(20, 30)}, [1]]
)
def test_a_shard_with_something_else_in_it_is_a_failed_row(tmp_path, part):
    metadata = write(tmp_path, {"w": torch.randn(60, 30)}, {"w": ROWS})
    torch.save(part, tmp_path / "__0_w.distcp")
    index, info = next(iter(metadata.storage_data.items()))
    metadata.storage_data[index] = replace(info, offset=0, length=(tmp_path / "__0_w.distcp").stat().st_size)
    save(tmp_path, metadata)
    analysis = htsr.analyze(tmp_path, bulk=False)
    assert [*analysis.details["status"], *analysis.skipped["name"]] in (["failed"], ["w"])


@pytest.mark.parametrize("seed", range(40))
def test_coverage_is_exact(seed):
    """Cut a box at random; the parts cover it, and no longer do when one moves, grows or is left out."""
    draw = random.Random(seed)
    shape = tuple(draw.randrange(1, 9) for _ in range(draw.randrange(1, 4)))
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw.randrange(6)):
        offsets, sizes = boxes.pop(draw.randrange(len(boxes)))
        dim = draw.randrange(len(shape))
        cut = draw.randrange(1, sizes[dim]) if sizes[dim] > 1 else 0
        if not cut:
            boxes.append((offsets, sizes))
            continue
        boxes.append((offsets, (*sizes[:dim], cut, *sizes[dim + 1 :])))
        moved = (*offsets[:dim], offsets[dim] + cut, *offsets[dim + 1 :])
        boxes.append((moved, (*sizes[:dim], sizes[dim] - cut, *sizes[dim + 1 :])))

    def covers(boxes):
        return _cover_once(shape, [Shard(o, s, None, 0, 0) for o, s in boxes])

    assert covers(boxes)
    assert not covers(boxes[1:])
    assert not covers([*boxes, boxes[0]])
    offsets, sizes = boxes[0]
    assert not covers([((offsets[0] + 1, *offsets[1:]), sizes), *boxes[1:]])
