"""Several layers at a time: the same rows as one after the other, in this process, in others, on a cluster."""

import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import htsr
from htsr.audit.jobs import analyze_layers
from htsr.audit.layer import Settings
from htsr.spectra.lapack import eigvalsh
from htsr.weights import Layer

SETTINGS = {"bootstrap": 20, "randomize": True, "progress": False}


def model():
    torch.manual_seed(0)
    layers = [nn.Linear(40 + 8 * i, 60) for i in range(5)]
    return nn.ModuleList([*layers, nn.Conv2d(16, 12, 3), nn.Embedding(200, 24)])


@pytest.fixture
def file(tmp_path):
    weights = {name: p.detach().clone() for name, p in model().named_parameters()}
    weights["bad.weight"] = torch.full((30, 30), torch.nan)
    save_file(weights, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_two_processes_give_the_rows_of_one(file):
    one, two = htsr.analyze(file, **SETTINGS), htsr.analyze(file, n_jobs=2, **SETTINGS)
    pd.testing.assert_frame_equal(one.details, two.details, check_exact=False, rtol=1e-9)
    assert list(one.spectra) == list(two.spectra)
    assert two["bad"].row["reason"] == "non-finite (900 of 900)"


def test_a_module_and_its_ties(file):
    net = model()
    net.append(nn.Linear(40, 60))
    net[-1].weight = net[0].weight
    one, two = htsr.analyze(net, progress=False), htsr.analyze(net, n_jobs=2, progress=False)
    pd.testing.assert_frame_equal(one.details, two.details, check_exact=False, rtol=1e-9)
    assert two["7"].row["tied_to"] == "0"


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib_decides(file, backend):
    threads = torch.get_num_threads()
    with joblib.parallel_config(backend=backend, n_jobs=2):
        a = htsr.analyze(file, progress=False)
    pd.testing.assert_frame_equal(htsr.analyze(file, progress=False).details, a.details, check_exact=False, rtol=1e-9)
    assert torch.get_num_threads() == threads


@dataclass(frozen=True)
class Tells:
    """Loads noise and leaves a note of who asked, with how many threads."""

    folder: Path
    shape: tuple[int, int]

    def __call__(self):
        (self.folder / f"{time.time_ns()}").write_text(f"{self.shape[0]} {os.getpid()} {torch.get_num_threads()}")
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0))


def test_biggest_first_in_other_processes_with_one_thread_each(tmp_path):
    layers = [Layer(f"w{n}", f"w{n}", "dense", (n, n), Tells(tmp_path, (n, n))) for n in (30, 90, 50, 70)]
    settings = Settings("ks", False, 0, False, True, False, "htsr", 0, None)
    found = list(analyze_layers(layers, settings, n_jobs=2, from_files=True))
    assert {result.name for result in found} == {"w30", "w90", "w50", "w70"}
    notes = [tuple(map(int, path.read_text().split())) for path in sorted(tmp_path.iterdir())]
    for worker in {pid for _, pid, _ in notes}:  # either may have started late
        sizes = [size for size, pid, _ in notes if pid == worker]
        assert sizes == sorted(sizes, reverse=True)
    assert all(pid != os.getpid() and threads == 1 for _, pid, threads in notes)


def test_each_result_arrives_as_it_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(htsr.audit.jobs, "SMALL_ENTRIES", 0)
    layers = [Layer(f"w{n}", f"w{n}", "dense", (n, n), Tells(tmp_path, (n, n))) for n in (30, 40, 50)]
    settings = Settings("ks", False, 0, False, False, False, "htsr", 0, None)
    results = analyze_layers(layers, settings, n_jobs=1, from_files=True)
    assert next(results).name == "w30"
    assert len(list(tmp_path.iterdir())) == 1


def test_small_matrices_share_the_cores(file):
    """Threads compute eigenvalues; the rows, their order and the reasons are those of one thread."""
    threads = torch.get_num_threads()
    tables = []
    for number in (1, 3):
        torch.set_num_threads(number)
        tables.append(htsr.analyze(file, progress=False).details)
    torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-12)


def test_weights_are_loaded_on_this_thread_in_order_and_few_at_a_time(monkeypatch):
    here, loaded = threading.get_ident(), []

    def load(number):
        assert threading.get_ident() == here
        loaded.append(number)
        if number == 7:
            raise ValueError("unreadable")
        return torch.randn(40, 30)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(htsr.audit.jobs, "SMALL_ENTRIES", 40 * 30)
    layers = [Layer(f"w{n}", f"w{n}", "dense", (40, 30), partial(load, n)) for n in range(12)]
    ahead = []
    for number, found in enumerate(analyze_layers(layers, Settings(bulk=False), n_jobs=1, from_files=False)):
        assert found.name == f"w{number}"
        assert found.fit.reason == "unreadable" if number == 7 else found.spectrum is not None
        ahead.append(len(loaded) - number)
    assert loaded == list(range(12))
    assert max(ahead) == 3


def test_on_a_device(file):
    a = htsr.analyze(file, device="cpu", progress=False)
    pd.testing.assert_frame_equal(a.details, htsr.analyze(file, progress=False).details)
    with pytest.raises(ValueError, match=r"device='gpu7'"):
        htsr.analyze(file, device="gpu7")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda"):
            htsr.analyze(file, device="cuda")


def test_layers_of_one_shape_go_to_a_device_together(monkeypatch):
    calls = []
    monkeypatch.setattr(htsr.spectra.spectrum, "eigvalsh", lambda stack: calls.append(stack.shape) or eigvalsh(stack))
    torch.manual_seed(0)
    weights = {
        "a": torch.randn(30, 50),
        "conv": torch.randn(50, 30, 2, 2),
        "b": torch.randn(20, 50),
        "c": torch.randn(50, 30),
    }
    weights |= {
        "bad": torch.full((30, 50), torch.nan),
        "d": torch.randn(30, 50).bfloat16(),
        "e": torch.randn(50, 30, 2, 2),
    }
    together = htsr.analyze(weights, device="cpu", bulk=False, progress=False)
    assert calls == [(3, 30, 30), (8, 30, 30), (1, 20, 20)]
    calls.clear()
    alone = htsr.analyze(weights, bulk=False, progress=False)
    assert sorted(calls) == [(1, 20, 20), (1, 30, 30), (1, 30, 30), (1, 30, 30), (4, 30, 30), (4, 30, 30)]
    pd.testing.assert_frame_equal(together.details, alone.details, rtol=1e-12)
    assert together["bad"].row["reason"] == "non-finite (1500 of 1500)"


def test_no_more_go_together_than_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(htsr.audit.jobs, "TOGETHER_BYTES", 2 * 8 * 30 * (30 + 30))
    layers = [Layer(f"w{n}", f"w{n}", "dense", (30, 30), Tells(tmp_path, (30, 30))) for n in range(5)]
    results = analyze_layers(layers, Settings(bulk=False, device="cpu"), n_jobs=1, from_files=True)
    loaded = [(found.name, len(list(tmp_path.iterdir()))) for found in results]
    assert loaded == [("w0", 2), ("w1", 2), ("w2", 4), ("w3", 4), ("w4", 5)]


def test_what_fails_together_is_tried_alone(monkeypatch):
    def small_memory(stack):
        if len(stack) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return eigvalsh(stack)

    monkeypatch.setattr(htsr.spectra.spectrum, "eigvalsh", small_memory)
    torch.manual_seed(0)
    weights = {"a": torch.randn(30, 50), "b": torch.randn(30, 50), "conv": torch.randn(30, 20, 3)}
    details = htsr.analyze(weights, device="cpu", bulk=False, progress=False).details.set_index("name")
    assert list(details["status"]) == ["success", "success", "failed"]
    assert details.loc["conv", "reason"] == "out of memory"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_alpha_is_the_same(file):
    on, off = htsr.analyze(file, device="cuda").details, htsr.analyze(file).details
    assert np.allclose(on["alpha"], off["alpha"], atol=1e-6, equal_nan=True)


def test_on_a_dask_cluster(file):
    distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        a = htsr.analyze(file, **SETTINGS)
    pd.testing.assert_frame_equal(htsr.analyze(file, **SETTINGS).details, a.details, check_exact=False, rtol=1e-9)


def test_on_a_ray_cluster(file):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    try:
        with joblib.parallel_config(backend="ray"):
            a = htsr.analyze(file, **SETTINGS)
    finally:
        ray.shutdown()
    pd.testing.assert_frame_equal(htsr.analyze(file, **SETTINGS).details, a.details, check_exact=False, rtol=1e-9)


def test_workers_draw_the_noise_of_a_shape_once(tmp_path, monkeypatch):
    drawn = []

    def draw(N, M, *rest):
        drawn.append((N, M))
        time.sleep(0.05)  # a second worker would not find it yet
        return 1 + np.random.default_rng(0).random((5, 50))

    monkeypatch.setenv("HTSR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(htsr.bulk.nulls, "_draw", draw)
    htsr.noise_null.cache_clear()
    shapes = [(40, 30), (30, 40), (40, 30), (50, 20), (50, 20)]
    weights = {f"w{number}": torch.randn(shape) for number, shape in enumerate(shapes)}
    with joblib.parallel_config(backend="threading"):
        assert len(htsr.analyze(weights, n_jobs=2, progress=False)) == 5
    htsr.noise_null.cache_clear()
    assert sorted(drawn) == [(40, 30), (50, 20)]
