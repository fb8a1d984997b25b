"""The HTMuon optimizer (Pang et al. 2026, arXiv 2603.10067), with AdamW for what is not a matrix."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from numbers import Real
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from htsr.optim.activity import INERT, parameter_activity
from htsr.optim.adamw import moment_dtype, new_adamw_state, step_adamw
from htsr.optim.distributed import UpdateJob, is_dtensor, local_part, run_jobs, zeros_beside
from htsr.optim.foreign_state import saved_by, taken_states
from htsr.optim.matrices import reading_of
from htsr.optim.moving import apply_updates, next_momenta
from htsr.optim.notices import tell_of_no_gradients, tell_of_unknown_matrices
from htsr.optim.parameters import check_parameter, may_be_matrix, tensor_of
from htsr.optim.rule import UpdateRule
from htsr.optim.schedules import PowerSchedule, drop_power, join_momentum, read_schedule
from htsr.optim.settings import (
    SETTINGS,
    AdjustLR,
    Layout,
    Method,
    Scale,
    check_algorithm,
    check_group_keys,
    check_settings,
)
from htsr.optim.stacks import batches, stack_limit

# Elements of the matrices that travel in one exchange between ranks, all ranks together.
EXCHANGE_ELEMENTS = 2**30


class _Matrix(NamedTuple):
    """A parameter that moves in this step, with the rule of its group."""

    rule: UpdateRule
    p: Tensor

    def stack_key(self) -> Hashable:
        """Return what parameters have in common that are updated together."""
        return self.rule, self.p.shape, self.p.dtype, self.p.device


class HTMuon(Optimizer):
    """Muon that raises the singular values of the momentum to a power, where Muon sets them to one.

    One step does this to a matrix W with gradient G::

        M <- momentum * M + (1 - momentum) * G
        D  = (1 - momentum) * G + momentum * M           (M itself without nesterov)
        W <- (1 - lr * weight_decay) * W
        W <- W - lr * sqrt(max(1, rows / columns)) * scaled(U S^power V^T),  D = U S V^T

    AdamW updates the parameters in groups with ``algorithm="adamw"`` in the same step; ``parameter_groups`` makes the
    groups of a model. In a group without ``algorithm``, HTMuon updates real tensors of two or more dimensions and AdamW the
    rest, with ``adamw_lr``. AdamW updates complex parameters as pairs of reals, as torch.optim.AdamW does. A group can have
    its own value of every setting.

    Args:
        params: ``parameter_groups(model)``, or parameters, named parameters or groups as any torch optimizer takes them.
        lr: Learning rate of the matrices. The default 0.02 is Muon's usual value (K. Jordan's reference code), which
            carries over with the default scale. The paper's 0.03 belongs to ``scale="raw"``.
        power: p in [-0.25, 1]. 0 is Muon, 1/8 is the paper's choice in every released script, and with 1 the update is
            the momentum. A schedule works, too: a function of the number of steps done, such as ``LinearPower``,
            ``CosinePower`` or ``StepPower``, or a list with a value for every step. A group's ``power`` is the number in
            use; without a schedule it may be set while training. Groups of AdamW have none.
        momentum: Decay of the moving average of gradients. In a group of matrices it is also ``betas[0]``, which torch's
            OneCycleLR and CyclicLR cycle: the next step uses the one of the two that has changed, and sets the other.
        nesterov: Update with the momentum one step ahead, as Muon does.
        weight_decay: Decoupled weight decay, multiplied by the group's ``lr``. 0.1 is the default of torch.optim.Muon and
            of the paper.
        scale: ``match_muon``, ``spectral`` or ``raw`` (the paper's); see ``spectral_power``.
        row_normalize: Divide the rows of the update by their running root mean square, then restore its norm
            (HTNorMuon).
        method: How the power is computed; see ``spectral_power``. ``"stream"`` keeps k x k numbers for each matrix, k
            its smaller side.
        adamw_lr: Learning rate of AdamW groups that do not set ``lr``; 1e-3 in the paper's scripts.
        betas: AdamW's decay rates; (0.9, 0.95) in the paper's scripts.
        eps: AdamW's term in the denominator; 1e-10 in the paper's scripts.
        steps: Number of Newton-Schulz steps; see ``spectral_power``.
        dtype: Type of the matrix products in Newton-Schulz steps; see ``spectral_power``.
        interval: Use the power in every ``interval``-th step, and in between take Muon's step at the size of the last
            update with the power. (The paper's code keeps the learning rate, so its steps differ 2.5-fold in size.)
        adjust_lr: How ``lr`` is adjusted to the shape of a matrix. ``"original"`` is the factor above. ``"spectral"`` is
            sqrt(rows / columns), with which in theory one ``lr`` serves all widths (Yang et al. 2023,
            arXiv 2310.17813). ``"match_rms_adamw"`` is 0.2 sqrt(max(rows, columns)), which gives updates the usual size of
            AdamW's (Moonlight, arXiv 2502.16982).
        row_beta: Decay of the moving average of ``row_normalize``; 0.95 in the paper's code.
        cautious: Decay only the weights whose sign agrees with that of their update (arXiv 2510.12402).
        layout: How a parameter is read as matrices: ``flatten``, ``stack`` (experts) or ``transposed``; see ``Reading``.
        split: Parts of a matrix that are updated on their own, such as query, key and value, or heads; see ``Reading``.
        split_dim: 0 to split rows, 1 to split columns.
        momentum_dtype: Type of the momentum; None for that of the parameter. ``torch.float32`` helps bfloat16
            parameters.
        compile: Run Newton-Schulz steps through ``torch.compile``.
        process_group: Ranks that share the work on replicated matrices (DDP); without it every rank computes all of
            them. Ranks always share the work on matrices sharded by FSDP2.

    Raises:
        TypeError: If a setting has the wrong type, such as a string instead of a number.
        ValueError: If a setting or a key of a group is unknown or out of range, a group with ``algorithm="htmuon"`` has a
            tensor that is not real or has fewer than two dimensions.

    Notes:
        A step leaves a parameter whose gradient and momentum are zero exactly as it is, without weight decay: frameworks
        such as torch.distributed.checkpoint step optimizers on zero gradients to make their state. Steps only read
        gradients.

        ``state_dict`` holds everything that a resumed run needs to continue to the last bit on a CPU: the powers in use,
        the number of steps done (which schedules and ``interval`` count), momentum and memories. It does not hold
        schedules; construct the optimizer with the same ones.

        A group may also have keys that torch's schedulers, Lightning and timm read (such as ``initial_lr``, ``name`` and
        ``lr_scale``). Put other keys of your own into ``optimizer.param_groups`` afterwards.

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
        power: float | PowerSchedule = 0.125,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        scale: Scale = "match_muon",
        row_normalize: bool = False,
        method: Method = "auto",
        adamw_lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        steps: int | None = None,
        dtype: torch.dtype | None = None,
        interval: int = 1,
        adjust_lr: AdjustLR = "original",
        row_beta: float = 0.95,
        cautious: bool = False,
        layout: Layout = "flatten",
        split: int | tuple[int, ...] | None = None,
        split_dim: int = 0,
        momentum_dtype: torch.dtype | None = None,
        compile: bool = False,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        given = locals()
        self.process_group = process_group
        super().__init__(params, {**{name: given[name] for name in SETTINGS}, "step": 0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, split into matrices and the rest if it has no ``algorithm``.

        Args:
            param_group: ``params``, any of the constructor's settings, and ``algorithm``.

        Raises:
            TypeError: If a setting has the wrong type, or the parameters are a set, which has no order.
            ValueError: If a key or a setting is unknown or out of range, or as the constructor. Nothing is added then.
        """
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError("expected parameters in an order that is the same on every run, got a set")
        items = [given] if isinstance(given, Tensor) else list(given)
        if "algorithm" in param_group:
            groups = [{**param_group, "params": items}]
        else:
            matrices = [item for item in items if may_be_matrix(tensor_of(item))]
            rest = [item for item in items if not may_be_matrix(tensor_of(item))]
            tell_of_unknown_matrices([tensor_of(item) for item in matrices])
            adamw_lr = param_group.get("adamw_lr", self.defaults["adamw_lr"])
            groups = [{**param_group, "params": matrices, "algorithm": "htmuon"}] if matrices or not items else []
            if rest:
                groups.append({**param_group, "params": rest, "algorithm": "adamw", "lr": adamw_lr})
        for group in groups:
            self._check_group(group)
        for group in groups:
            super().add_param_group(group)
            del self.param_groups[-1]["adamw_lr"]  # it has become the group's lr
        drop_power(self.param_groups)

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuse a wrong group before anything is added, and give it the values that depend on other groups."""
        check_group_keys(group)
        check_algorithm(group["algorithm"])
        if group["algorithm"] == "adamw":
            group.setdefault("lr", group.get("adamw_lr", self.defaults["adamw_lr"]))
        for name in ("power", "momentum", "betas"):
            group.setdefault(name, self.defaults[name])
        group.setdefault("step", max((other["step"] for other in self.param_groups), default=0))
        read_schedule(group)
        settings = {**self.defaults, **group}
        check_settings(settings)
        join_momentum(group)
        reading = reading_of(settings)
        for item in group["params"]:
            check_parameter(item, group["algorithm"], reading)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step.

        Args:
            closure: Computes the loss again and returns it.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: If a gradient is sparse.
            TypeError: If a setting of a group was changed to a value of the wrong type.
            ValueError: If a gradient is not finite, or a setting was changed to a value out of range. No weight has
                changed then, so the caller can leave the step out and go on.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            read_schedule(group)
            join_momentum(group)
        rules = [UpdateRule.of(group) if group["algorithm"] == "htmuon" else None for group in self.param_groups]
        activity = parameter_activity(self.param_groups, self.state, self.process_group)
        matrices: list[_Matrix] = []
        vectors: list[list[Tensor]] = []
        for group, rule in zip(self.param_groups, rules, strict=True):
            for p in group["params"]:
                # sharded parameters always have state, so that checkpoints of all runs have the same keys
                if activity[p] >= INERT or is_dtensor(p):
                    self._complete_state(p, rule, group["momentum_dtype"])
            moving = [p for p in group["params"] if activity[p] > INERT]
            matrices += [_Matrix(rule, p) for p in moving if rule is not None]
            vectors.append([p for p in moving if rule is None])
        if not any(value > INERT for value in activity.values()):
            if all(p.grad is None for p in activity):
                tell_of_no_gradients()
            return loss
        for batch in self._batches(matrices):
            self._step_matrices(batch)
        for group, moving in zip(self.param_groups, vectors, strict=True):
            step_adamw(group, moving, self.state)
            group["step"] += 1
        return loss

    def _complete_state(self, p: Tensor, rule: UpdateRule | None, momentum_dtype: torch.dtype | None) -> None:
        """Make the state that a parameter lacks, all of it at first, and let the rest follow the parameter."""
        state = self.state[p]
        _follow(state, p, moment_dtype(p) if rule is None else None)
        if rule is None:
            if not state:
                state.update(new_adamw_state(p))
            return
        if not state:
            dtype = momentum_dtype or p.dtype
            state["momentum_buffer"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
        for name, count in rule.memory_counts(p.shape).items():
            if name not in state:
                state[name] = zeros_beside(p, count, torch.promote_types(p.dtype, torch.float32))

    def _batches(self, matrices: list[_Matrix]) -> Iterator[list[_Matrix]]:
        """Yield matrices that are updated together: those of one exchange between ranks, then those of one stack."""
        everywhere = self.process_group is not None
        exchanged = [matrix for matrix in matrices if everywhere or is_dtensor(matrix.p)]
        here = [matrix for matrix in matrices if not (everywhere or is_dtensor(matrix.p))]
        yield from batches(exchanged, lambda _: None, lambda matrix: matrix.p, lambda _: EXCHANGE_ELEMENTS)
        yield from batches(here, _Matrix.stack_key, lambda matrix: matrix.p, stack_limit)

    def _step_matrices(self, batch: list[_Matrix]) -> None:
        """Move the momentum of matrices by their gradients, and the matrices by their updates."""
        rules, params = [rule for rule, _ in batch], [p for _, p in batch]
        momenta = next_momenta(rules, params, [local_part(self.state[p]["momentum_buffer"]) for p in params])
        jobs = []
        for (rule, p), momentum in zip(batch, momenta, strict=True):
            memory = {name: local_part(self.state[p][name]) for name in rule.memory_counts(p.shape)}
            jobs.append(UpdateJob(p, rule, momentum, memory))
        apply_updates(rules, params, run_jobs(jobs, self.process_group))

    def resolution(self) -> dict[str, float]:
        """Say which share of each matrix's singular directions the last step left out, because its momentum hides them.

        A momentum of low rank, such as the first one of a small batch, has directions in which its entries hold nothing but
        rounding noise. A power would lift that noise, so the update leaves these directions out.

        Returns:
            The share left out, from 0 to 1, by the name of the parameter, or by ``"group.index"`` where groups have no
            names. For ``method="iterate"``, the default on a GPU, it counts what lies below the domain of the
            steps. Only matrices that have moved are there, and of sharded ones those whose share this rank keeps.
        """
        shares = {}
        for number, group in enumerate(self.param_groups):
            names = group.get("param_names") or [f"{number}.{i}" for i in range(len(group["params"]))]
            for name, p in zip(names, group["params"], strict=True):
                kept = self.state[p].get("resolved") if p in self.state else None
                if kept is not None and local_part(kept).numel():
                    shares[name] = 1 - float(local_part(kept).mean())
        return shares

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs as plain data, without the schedules.

        Returns:
            What ``torch.optim.Optimizer.state_dict`` returns.
        """
        state_dict = super().state_dict()
        for group in state_dict["param_groups"]:
            group.pop("power_schedule", None)
            group.update({name: _plain(value) for name, value in group.items() if name != "params"})
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a ``state_dict``, with the schedules that this optimizer was made with.

        Args:
            state_dict: The ``state_dict`` of an HTMuon with the same parameters in the same groups. A state of
                ``torch.optim.Muon`` gives its momentum to the matrices, one of AdamW its moments to the other parameters,
                and one of K. Jordan's MuonWithAuxAdam both: by name if all names are the same, else in order. The settings
                stay those of this optimizer.

        Raises:
            InputError: If another optimizer saved the state, or its parameters do not fit. Nothing has changed then.
        """
        other = saved_by(state_dict)
        if other is not None:
            self.state.update(taken_states(other, state_dict, self.param_groups))
            return
        schedules = [group.get("power_schedule") for group in self.param_groups]
        super().load_state_dict(state_dict)
        drop_power(self.param_groups)  # states of older versions have one in every group
        for group, schedule in zip(self.param_groups, schedules, strict=True):
            if schedule is not None:
                group["power_schedule"] = schedule
        # torch casts all state to the dtype of the parameter; float32 momentum of a bfloat16 parameter would lose digits
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for key, p in zip(keys, params, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if isinstance(value, Tensor) and value.dtype != self.state[p][name].dtype:
                    self.state[p][name] = value.detach().clone().to(self.state[p][name].device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("process_group", None)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                if name != "adamw_lr":
                    group.setdefault(name, value)
        drop_power(self.param_groups)


def _plain(value: Any) -> Any:
    """Return numpy's numbers, which schedulers may compute and torch.load refuses, as Python's."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return float(value) if isinstance(value, Real) and type(value).__module__ == "numpy" else value


def _follow(state: dict[str, Tensor], p: Tensor, dtype: torch.dtype | None) -> None:
    """Bring state to where its parameter was moved since the last step, and to a dtype if it has a fixed one."""
    for name, value in state.items():
        wanted = dtype or value.dtype
        if name != "step" and (value.device != p.device or value.dtype != wanted):
            state[name] = value.to(device=p.device, dtype=wanted)
