"""HTMuon in transformers' Trainer."""

from typing import Any

from torch import nn

from htsr.optim.htmuon import HTMuon
from htsr.optim.parameter_groups import parameter_groups

GROUPING = ("embeddings_and_head", "stacks", "splits")


def optimizer_cls_and_kwargs(model: nn.Module, **settings: Any) -> tuple[type[HTMuon], dict[str, Any]]:
    """What ``transformers.Trainer(..., optimizer_cls_and_kwargs=...)`` takes.

    The Trainer's ``learning_rate`` and ``weight_decay`` do not reach optimizers given in this way; its scheduler does.

    Args:
        model: The model that is given to the Trainer.
        **settings: ``HTMuon``'s and ``parameter_groups``', e.g. ``lr=0.02, power=0.125``.

    Returns:
        The class and its arguments.
    """
    grouping = {name: settings.pop(name) for name in GROUPING if name in settings}
    return HTMuon, {"params": parameter_groups(model, **grouping), **settings}
