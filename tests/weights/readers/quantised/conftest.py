import json

import pytest
import torch
from safetensors.torch import save_file

from htsr.weights import open_source


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def checkpoint(tmp_path):
    """Write tensors and the settings in config.json, and list them."""

    def write(tensors, settings=None, **config):
        config |= {} if settings is None else {"quantization_config": settings}
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "model.safetensors")
        return open_source(tmp_path)

    return write


@pytest.fixture
def reason(checkpoint):
    """Write tensors, expect that none is analysed, and return the reason of the weight."""

    def read(tensors, settings=None):
        inventory = checkpoint(tensors, settings)
        assert not inventory.layers
        assert len(inventory.skipped) == len(tensors)
        main = [
            skipped.reason for skipped in inventory.skipped if not skipped.reason.startswith("part of the quantised")
        ]
        assert len(main) == 1
        return main[0]

    return read
