"""The random numbers of Python, numpy and torch, kept while a copy of a training draws from them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class RandomState:
    """The states of the global random numbers at one moment."""

    def __init__(self) -> None:
        self._python, self._torch = random.getstate(), torch.get_rng_state()
        self._numpy = np.random.get_state()  # noqa: NPY002 - a closure may draw from the global state
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def restore(self) -> None:
        """Set the states back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)


def seed_everything(seed: int) -> None:
    """Seed the global random numbers; those of a GPU only if it is in use."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed a GPU that is used later
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def kept_random_state(seed: int | None = None) -> Iterator[None]:
    """Set the global random numbers back at the end; seed them within the context if there is a seed."""
    before = RandomState()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        before.restore()
