"""The HTMuon optimizer (Pang et al. 2026, arXiv 2603.10067), with AdamW for what is not a matrix."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from htsr.optim.spectral_power import Method, Scale, check_method, check_power, check_scale, spectral_power

ALGORITHMS = ("htmuon", "adamw")


class HTMuon(Optimizer):
    """Muon with the singular values of the momentum raised to a power instead of set to one.

    For a matrix W with gradient G, at every step::

        M <- momentum * M + (1 - momentum) * G
        D  = (1 - momentum) * G + momentum * M           (M itself without nesterov)
        W <- (1 - lr * weight_decay) * W
        W <- W - lr * sqrt(max(1, rows / columns)) * scaled(U S^power V^T),  D = U S V^T

    Parameters in groups with ``algorithm="adamw"`` get AdamW in the same step; ``parameter_groups`` makes the groups of
    a model. In a group without ``algorithm``, tensors of two or more dimensions are matrices and the rest gets AdamW
    with ``adamw_lr``. Convolution kernels are flattened to ``(out, in * kernel)``.

    Args:
        params: ``parameter_groups(model)``, or anything else that a torch optimizer takes.
        lr: Learning rate of the matrices. 0.02 is Muon's usual value (K. Jordan's reference code), which carries over
            with the default scale. The paper's 0.03 belongs to ``scale="raw"``.
        power: p in [-0.25, 1]. 0 is Muon; 1/8 is the paper's choice in every released script; with 1 the update is the
            momentum. Kept in each group, so it can differ between groups and be changed while training.
        momentum: Decay of the momentum's moving average.
        nesterov: Look one step ahead, as Muon does.
        weight_decay: Decoupled; 0.1 as in torch.optim.Muon and in the paper. It is multiplied by the group's ``lr``.
        scale: ``match_muon``, ``spectral`` or ``raw`` (the paper's); see ``spectral_power``.
        method: How the power is computed; see ``spectral_power``.
        adamw_lr: Learning rate of AdamW groups that do not set ``lr``; 1e-3 in the paper's scripts.
        betas: AdamW's; the paper's scripts have (0.9, 0.95).
        eps: AdamW's; 1e-10 in the paper's scripts.

    Raises:
        ValueError: If a setting is out of range, or a tensor with fewer than two dimensions, a complex or an integer
            one is in an ``htmuon`` group.

    Notes:
        A parameter whose gradient and momentum are zero is left exactly as it is, without weight decay: frameworks step
        optimizers on zero gradients to make their state (torch.distributed.checkpoint does). Gradients are only read.

    Example:
        >>> from htsr.optim import HTMuon, parameter_groups
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> optimizer = HTMuon(parameter_groups(model), lr=0.02, power=0.125)
        >>> [(group["algorithm"], group["param_names"]) for group in optimizer.param_groups]
        [('htmuon', ['0.weight']), ('adamw', ['2.weight']), ('adamw', ['0.bias', '2.bias'])]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float | Tensor = 0.02,
        *,
        power: float = 0.125,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        scale: Scale = "match_muon",
        method: Method = "auto",
        adamw_lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        defaults = {
            "lr": lr,
            "power": power,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "scale": scale,
            "method": method,
            "adamw_lr": adamw_lr,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; one without ``algorithm`` is split into matrices and the rest.

        Args:
            param_group: ``params``, and any of the constructor's settings, and ``algorithm``.

        Raises:
            TypeError: If the parameters are a set.
            ValueError: As the constructor.
        """
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError("expected parameters in an order that is the same on every run, got a set")
        items = [given] if isinstance(given, Tensor) else list(given)
        if "algorithm" in param_group:
            groups = [{**param_group, "params": items}]
        else:
            matrices = [item for item in items if _tensor(item).ndim >= 2]
            rest = [item for item in items if _tensor(item).ndim < 2]
            adamw_lr = param_group.get("adamw_lr", self.defaults["adamw_lr"])
            groups = [{**param_group, "params": matrices, "algorithm": "htmuon"}] if matrices or not items else []
            if rest:
                groups.append({**param_group, "params": rest, "algorithm": "adamw", "lr": adamw_lr})
        for group in groups:
            self._check_group(group)
        for group in groups:
            super().add_param_group(group)
            del self.param_groups[-1]["adamw_lr"]  # only ever the default of another key

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuse a group before anything is added; an AdamW group without a learning rate gets its own default."""
        if group["algorithm"] not in ALGORITHMS:
            raise ValueError(f"expected algorithm to be one of {', '.join(ALGORITHMS)}, got {group['algorithm']!r}")
        if group["algorithm"] == "adamw":
            group.setdefault("lr", group.get("adamw_lr", self.defaults["adamw_lr"]))
        _check_settings({**self.defaults, **group})
        for item in group["params"]:
            _check_parameter(item, group["algorithm"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step.

        Args:
            closure: Computes the loss again and returns it.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: If a gradient is sparse.
            ValueError: If a gradient is not finite, or a group's power was set out of range. Nothing was changed then, so the
                step can be left out and training go on.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check_gradients()
        for group in self.param_groups:
            if group["algorithm"] == "htmuon":
                self._step_matrices(group)
            else:
                self._step_adamw(group)
        return loss

    def _check_gradients(self) -> None:
        """All of them before the first weight moves."""
        for group in self.param_groups:
            check_power(group["power"])
            for index, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(
                        f"HTMuon does not support sparse gradients, got one for {_label(group, index)}: use sparse=False"
                    )
                finite = torch.isfinite(p.grad)
                if not finite.all():
                    raise ValueError(
                        f"the gradient of {_label(group, index)} is not finite ({int((~finite).sum())} of {p.numel()} "
                        "entries); nothing was changed: leave this step out, or find where the loss diverged"
                    )

    def _step_matrices(self, group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            buffer = state["momentum_buffer"]
            buffer.lerp_(p.grad, 1 - momentum)
            direction = p.grad.lerp(buffer, momentum) if group["nesterov"] else buffer
            if not direction.any():
                continue
            D_mn = direction.reshape(len(p), -1)
            update = spectral_power(D_mn, group["power"], method=group["method"], scale=group["scale"])
            rows, columns = D_mn.shape
            p.mul_(1 - lr * group["weight_decay"])
            p.sub_(lr * math.sqrt(max(1, rows / columns)) * update.view_as(p))

    def _step_adamw(self, group: dict[str, Any]) -> None:
        moving = []
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            if p.grad.any() or state["exp_avg"].any():
                moving.append(p)
        if not moving:
            return
        states = [self.state[p] for p in moving]
        beta1, beta2 = group["betas"]
        adamw(
            moving,
            [p.grad for p in moving],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _tensor(item: Tensor | tuple[str, Tensor]) -> Tensor:
    """The tensor of an item of ``params``, which may carry its name."""
    return item[1] if isinstance(item, tuple) else item


def _label(group: dict[str, Any], index: int) -> str:
    """What to call a parameter in a message: its name where the group has names, and its shape."""
    names = group.get("param_names")
    shape = tuple(group["params"][index].shape)
    return f"{names[index]!r} of shape {shape}" if names else f"a parameter of shape {shape}"


def _check_settings(group: dict[str, Any]) -> None:
    check_power(group["power"])
    check_scale(group["scale"])
    check_method(group["method"])
    for name in ("lr", "weight_decay", "eps"):
        if not group[name] >= 0:
            raise ValueError(f"expected {name} >= 0, got {group[name]}")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"expected momentum in [0, 1), got {group['momentum']}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise ValueError(f"expected betas in [0, 1), got {group['betas']}")


def _check_parameter(item: Tensor | tuple[str, Tensor], algorithm: str) -> None:
    p = _tensor(item)
    label = (
        f"{item[0]!r} of shape {tuple(p.shape)}"
        if isinstance(item, tuple)
        else f"a parameter of shape {tuple(p.shape)}"
    )
    if not p.is_floating_point():
        raise ValueError(f"expected real floating-point parameters, got {label} with dtype {p.dtype}")
    if algorithm == "htmuon" and p.ndim < 2:
        raise ValueError(
            f"expected matrices in a group with algorithm='htmuon', got {label}: put it in a group with "
            "algorithm='adamw', or let htsr.optim.parameter_groups(model) make the groups"
        )
