"""What many tests share."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from htsr.demo.run import trained_transformer
from htsr.errors import InputError

# A shell starts a background job with Ctrl-C ignored, and so would be the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Nulls of this run, shared by its workers; neither read from nor left in the user's folder."""
    os.environ["HTSR_CACHE_DIR"] = str(tmp_path_factory.getbasetemp().parent / "htsr-cache")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Checkpoint of a trained Transformer, 39 matrices with 384 eigenvalues each."""
    try:
        return trained_transformer()
    except InputError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="session")
def read_page():
    """A function that returns the data inside a page, as the page's scripts read it."""

    def data_of(page: str):
        start = page.index('<script type="application/json" id="data">')
        return json.loads(page[page.index(">", start) + 1 : page.index("</script>", start)])

    return data_of


@pytest.fixture
def gaussian() -> torch.Tensor:
    """A 120 x 80 matrix of standard normals."""
    return torch.randn(120, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def planted(eigenvalues: torch.Tensor, rows: int, seed: int = 0) -> torch.Tensor:
    """A matrix with given eigenvalues of W^T W, shape ``(rows, len(eigenvalues))``, float64."""
    draw = torch.Generator().manual_seed(seed)
    columns = len(eigenvalues)
    U = torch.linalg.qr(torch.randn(rows, columns, generator=draw, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(columns, columns, generator=draw, dtype=torch.float64)).Q
    return (U * eigenvalues.double().sqrt()) @ V.mT


def pareto(alpha: float, size: int, seed: int = 0) -> torch.Tensor:
    """Exact draws from p(x) ~ x^-alpha, x >= 1, ascending."""
    uniform = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((1 - uniform) ** (-1 / (alpha - 1))).sort().values
