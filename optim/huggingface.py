"""HTMuon in transformers' Trainer."""

from typing import Any

from torch import nn

from htsr.optim.htmuon import HTMuon
from htsr.optim.parameter_groups import parameter_groups

GROUPING = ("embeddings_and_head", "stacks", "splits")


def optimizer_cls_and_kwargs(model: nn.Module, **settings: Any) -> tuple[type[HTMuon], dict[str, Any]]:
    """Return what ``transformers.Trainer(..., optimizer_cls_and_kwargs=...)`` takes.

    The Trainer does not pass its ``learning_rate`` and ``weight_decay`` to optimizers given in this way; its scheduler
    does act on them.

    Args:
        model: The model that the Trainer trains.
        **settings: Settings of ``HTMuon`` and of ``parameter_groups``, such as ``lr=0.02, power=0.125``.

    Returns:
        The class and its arguments.
    """
    grouping = {name: settings.pop(name) for name in GROUPING if name in settings}
    return HTMuon, {"params": parameter_groups(model, **grouping), **settings}
