"""Results survive pickle, also into another process, and deepcopy."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import htsr
from tests.test_packaging import ROOT

KINDS = [
    "Analysis", "Comparison", "History", "LayerAnalysis", "LayerComparison", "MarchenkoPasturFit", "NoiseNull",
    "PowerLawFit", "Spectrum",
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    draw = torch.Generator().manual_seed(0)
    a, b = ({"w": torch.randn(60, 40, generator=draw)} for _ in range(2))
    analysis, comparison = htsr.analyze(a), htsr.compare(a, b)
    model = nn.Linear(30, 20)
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    with htsr.Monitor(model, torch.optim.SGD(model.parameters(), 0.1), run_dir=run_dir):
        pass
    layer = analysis["w"]
    found = [
        analysis, comparison, htsr.History(run_dir), layer, comparison["w"],
        htsr.fit_marchenko_pastur(layer.spectrum.eigenvalues, 60, 40), htsr.noise_null(60, 40), layer.fit, layer.spectrum,
    ]  # fmt: skip
    return {type(result).__name__: result for result in found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_copy_is_the_same(results, kind, copied):
    result = results[kind]
    twin = copied(result)
    assert type(twin) is type(result)
    assert repr(twin) == repr(result)
    if hasattr(result, "details"):
        assert twin.details.equals(result.details)


def test_a_process_that_has_not_imported_htsr_reads_a_pickle(results, tmp_path):
    path = tmp_path / "results.pickle"
    path.write_bytes(pickle.dumps(results))
    code = f"import pickle; print(sorted(pickle.load(open({str(path)!r}, 'rb'))))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(KINDS)
