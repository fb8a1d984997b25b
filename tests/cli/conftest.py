"""What the tests of the commands share."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from htsr.cli import main


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 30))
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    return path


def run(capsys, *arguments):
    """Status, stdout and stderr of a command."""
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()
