"""The demo's model and text."""

import math

import pytest
import torch

from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT(context=32, width=32, depth=2, heads=2)


def test_untrained_loss_is_near_that_of_guessing(model):
    loss = model.loss(torch.randint(256, (8, 33), generator=torch.Generator().manual_seed(0)))
    assert loss.item() == pytest.approx(math.log(256), rel=0.05)


def test_it_sees_the_past_only(model):
    sequence = torch.randint(256, (1, 32), generator=torch.Generator().manual_seed(1))
    changed = sequence.clone()
    changed[0, 20:] = 0
    torch.testing.assert_close(model(sequence)[0, :20], model(changed)[0, :20])


def test_size():
    assert sum(p.numel() for p in GPT(128).parameters()) == 673_536


def test_text_is_large_and_split_by_file():
    train, held_out = standard_library()
    assert len(train) > 1_000_000
    assert 0.02 < len(held_out) / len(train) < 0.4
    assert standard_library() == (train, held_out)
    assert tokens(b"az").tolist() == [97, 122]
