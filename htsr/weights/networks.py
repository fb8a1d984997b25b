"""Tell the networks of a checkpoint that holds several: a generator and a discriminator, a model and its moving average."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from htsr.errors import InputError
from htsr.weights.names import clean_names

# Entries beside a model that hold tensors with the names of weights, but no network.
NO_NETWORK = re.compile(r"optim|sched|scaler|grad|momentum|moments", re.I)
# Names of a copy of the weights that is averaged over the steps.
EMA = re.compile(r"(\w*_)?(ema|swa|averaged?)(_\w*)?", re.I)
EMA_NOTE = "a moving average (EMA) of the weights of another network here"

Extract = Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], dict[str, Any]]]


def several_networks(checkpoint: Mapping[str, Any], extract: Extract) -> dict[str, Mapping[str, Any]]:
    """Return the state dicts in a checkpoint by name, if there are at least two; ``extract`` finds one inside an entry."""
    found = {}
    for name, value in checkpoint.items():
        if isinstance(value, Mapping) and not NO_NETWORK.search(name) and all(isinstance(key, str) for key in value):
            try:
                inner, _ = extract(value)
            except InputError:  # the state of an optimizer, whose keys are numbers
                continue
            if any(_is_weight(key, tensor) for key, tensor in inner.items()):
                found[name] = inner
    return found if len(found) > 1 else {}


def side_by_side(networks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one mapping of the tensors of several networks, with the name of each before its tensors."""
    return {
        f"{network}.{clean}": tensors[key]
        for network, tensors in networks.items()
        for key, clean in clean_names(list(tensors)).items()
    }


def averaged(keys: Mapping[str, str]) -> set[str]:
    """Return the keys whose names belong to a moving average of the other weights."""
    first = {key: name.split(".")[0] for key, name in keys.items()}
    average = {key for key, part in first.items() if EMA.fullmatch(part)}
    return average if len(average) < len(keys) else set()


def _is_weight(key: str, value: object) -> bool:
    """Return whether an entry of a state dict is a weight of at least two dimensions by its name."""
    return isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 1 and key.endswith(("weight", "kernel"))
