"""The HTMuon optimizer (Pang et al. 2026, arXiv 2603.10067), with AdamW for what is not a matrix."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from htsr.errors import InputError
from htsr.optim.checks import check_algorithm, check_parameter, check_settings, label_of, tensor_of
from htsr.optim.distributed import Job, agree, flat_zeros, is_dtensor, local, local_gradient, run_jobs
from htsr.optim.matrices import Layout
from htsr.optim.schedules import Schedule, power_at
from htsr.optim.spectral_power import Method, Scale, check_power
from htsr.optim.stacks import chunks, compute_updates, memory_counts, reading_of, stack_entries
from htsr.optim.update import AdjustLR

# Entries of the matrices that travel in one exchange between ranks, all ranks together.
EXCHANGE_ENTRIES = 2**30
INERT, MISSING = 0.0, -1.0


class HTMuon(Optimizer):
    """Muon with the singular values of the momentum raised to a power instead of set to one.

    For a matrix W with gradient G, at every step::

        M <- momentum * M + (1 - momentum) * G
        D  = (1 - momentum) * G + momentum * M           (M itself without nesterov)
        W <- (1 - lr * weight_decay) * W
        W <- W - lr * sqrt(max(1, rows / columns)) * scaled(U S^power V^T),  D = U S V^T

    Parameters in groups with ``algorithm="adamw"`` get AdamW in the same step; ``parameter_groups`` makes the groups of
    a model. In a group without ``algorithm``, tensors of two or more dimensions are matrices and the rest gets AdamW
    with ``adamw_lr``. Every setting can be given for a group alone.

    Args:
        params: ``parameter_groups(model)``, or anything else that a torch optimizer takes.
        lr: Learning rate of the matrices. 0.02 is Muon's usual value (K. Jordan's reference code), which carries over
            with the default scale. The paper's 0.03 belongs to ``scale="raw"``.
        power: p in [-0.25, 1]. 0 is Muon; 1/8 is the paper's choice in every released script; with 1 the update is the
            momentum. Also a schedule: a function of the number of steps done, such as ``LinearPower``, ``CosinePower``
            and ``StepPower``, or a value for every step. The group's ``power`` is the number in use, and may be set.
        momentum: Decay of the momentum's moving average.
        nesterov: Look one step ahead, as Muon does.
        weight_decay: Decoupled; 0.1 as in torch.optim.Muon and in the paper. It is multiplied by the group's ``lr``.
        scale: ``match_muon``, ``spectral`` or ``raw`` (the paper's); see ``spectral_power``.
        row_normalize: HTNorMuon: divide the rows of the update by their running root mean square and restore its norm.
        method: How the power is computed; see ``spectral_power``. ``"stream"`` keeps k x k numbers for a matrix.
        adamw_lr: Learning rate of AdamW groups that do not set ``lr``; 1e-3 in the paper's scripts.
        betas: AdamW's; the paper's scripts have (0.9, 0.95).
        eps: AdamW's; 1e-10 in the paper's scripts.
        steps: Newton-Schulz steps; see ``spectral_power``.
        dtype: Of the matrix products in Newton-Schulz steps; see ``spectral_power``.
        interval: Use the power in every ``interval``-th step and Muon between, at the size of the last update with the
            power. (The paper's code keeps the learning rate, so that its steps differ 2.5-fold in size.)
        adjust_lr: By which factor ``lr`` is adjusted to the shape of a matrix: ``original``, the factor above;
            ``match_rms_adamw``; ``spectral``, with which one ``lr`` serves all widths. See ``lr_factor``.
        row_beta: Decay of ``row_normalize``'s moving average; 0.95 in the paper's code.
        cautious: Decay only weights whose sign agrees with that of their update (arXiv 2510.12402).
        layout: How a parameter is read as matrices: ``flatten``, ``stack`` (experts) or ``transposed``; see ``Reading``.
        split: Parts of a matrix that are updated on their own, such as query, key and value or heads; see ``Reading``.
        split_dim: 0 to split rows, 1 to split columns.
        momentum_dtype: Of the momentum; that of the parameter if None. ``torch.float32`` helps bfloat16 parameters.
        compile: Run Newton-Schulz steps through ``torch.compile``.
        process_group: Deal replicated matrices out over these ranks (DDP), instead of computing all on each. Matrices
            sharded by FSDP2 are always dealt out.

    Raises:
        ValueError: If a setting is out of range, or a tensor with fewer than two dimensions, a complex or an integer
            one is in an ``htmuon`` group.

    Notes:
        A parameter whose gradient and momentum are zero is left exactly as it is, without weight decay: frameworks step
        optimizers on zero gradients to make their state (torch.distributed.checkpoint does). Gradients are only read.

        ``state_dict`` holds everything that a resumed run needs to continue to the last bit on a CPU: the powers in use,
        the number of steps done, which schedules and ``interval`` count, momentum and memories. Functions given as
        schedules are not in it; construct the optimizer with the same ones.

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
        power: float | Schedule = 0.125,
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
        defaults = {
            "lr": lr,
            "power": power,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "scale": scale,
            "row_normalize": row_normalize,
            "method": method,
            "adamw_lr": adamw_lr,
            "betas": betas,
            "eps": eps,
            "steps": steps,
            "dtype": dtype,
            "interval": interval,
            "adjust_lr": adjust_lr,
            "row_beta": row_beta,
            "cautious": cautious,
            "layout": layout,
            "split": split,
            "split_dim": split_dim,
            "momentum_dtype": momentum_dtype,
            "compile": compile,
            "step": 0,
        }
        self.process_group = process_group
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
            matrices = [item for item in items if tensor_of(item).ndim >= 2]
            rest = [item for item in items if tensor_of(item).ndim < 2]
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
        check_algorithm(group["algorithm"])
        if group["algorithm"] == "adamw":
            group.setdefault("lr", group.get("adamw_lr", self.defaults["adamw_lr"]))
        group.setdefault("power", self.defaults["power"])
        group.setdefault("step", max((other["step"] for other in self.param_groups), default=0))
        _read_schedule(group)
        check_settings({**self.defaults, **group})
        reading = reading_of({**self.defaults, **group})
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
            ValueError: If a gradient is not finite, or a group's power was set out of range. Nothing was changed then, so the
                step can be left out and training go on.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _read_schedule(group)
            check_power(group["power"])
        activity = self._check_gradients()
        for group in self.param_groups:
            for p in group["params"]:
                # sharded ones always, so that checkpoints have the same keys whichever parameters were used
                if activity[p] >= INERT or is_dtensor(p):
                    self._make_state(p, group)
        if not any(value > INERT for value in activity.values()):
            return loss
        for jobs in self._batches(activity):
            self._step_matrices(jobs)
        for group in self.param_groups:
            if group["algorithm"] == "adamw":
                _step_adamw(group, [p for p in group["params"] if activity[p] > INERT], self.state)
            group["step"] += 1
        return loss

    def _check_gradients(self) -> dict[Tensor, float]:
        """All of them before the first weight moves: positive where something moves, on any rank."""
        places = [(group, index) for group in self.param_groups for index in range(len(group["params"]))]
        params = [group["params"][index] for group, index in places]
        distributed = self.process_group is not None or any(is_dtensor(p) for p in params)
        gradients = []
        for (group, index), p in zip(places, params, strict=True):
            if p.grad is not None and p.grad.is_sparse:
                raise RuntimeError(
                    f"HTMuon does not support sparse gradients, got one for {label_of(group, index)}: use sparse=False"
                )
            gradients.append(local_gradient(p))
        activity = _largest(gradients)
        for i, (group, _) in enumerate(places):
            if activity[i] == INERT and self._in_motion(params[i], group):
                activity[i] = 1.0
        if distributed:
            device = next((local(p).device for p in params if is_dtensor(p)), local(params[0]).device)
            agreed = agree(torch.tensor(activity, dtype=torch.float64, device=device), params, self.process_group)
            shared = [is_dtensor(p) or (self.process_group is not None and p.ndim >= 2) for p in params]
            everywhere = agreed.tolist()
            failed = [i for i, value in enumerate(everywhere) if value == float("inf")]
            activity = [b if both else a for a, b, both in zip(activity, everywhere, shared, strict=True)]
        else:
            failed = [i for i, value in enumerate(activity) if value == float("inf")]
        for i in failed:
            group, index = places[i]
            grad = gradients[i]
            bad = 0 if grad is None else int((~torch.isfinite(grad)).sum())
            where = f"{bad} of {params[i].numel()} entries" if bad else "on another rank"
            raise InputError(
                f"the gradient of {label_of(group, index)} is not finite ({where}) at step {group['step']}; nothing was "
                "changed: leave this step out, or find where the loss diverged"
            )
        return dict(zip(params, activity, strict=True))

    def _in_motion(self, p: Tensor, group: dict[str, Any]) -> bool:
        """Whether a parameter moves though its gradient is zero."""
        state = self.state.get(p)
        if not state:
            return False
        if group["algorithm"] == "adamw":
            return bool(state["step"] > 0)
        return group["momentum"] > 0 and bool(local(state["momentum_buffer"]).any())

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> None:
        """What is not there yet: all of it at first, a memory where a setting was changed since."""
        state = self.state[p]
        if group["algorithm"] == "adamw":
            if state:
                return
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            return
        if not state:
            dtype = group["momentum_dtype"] or p.dtype
            state["momentum_buffer"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
        for name, count in memory_counts(p, group).items():
            if name not in state:
                state[name] = flat_zeros(count, p, torch.promote_types(p.dtype, torch.float32))

    def _batches(self, activity: dict[Tensor, float]) -> Iterator[list[tuple[Tensor, dict[str, Any]]]]:
        """Matrices that are updated together: those of one exchange between ranks, or one stack of the same shape."""
        moving = [
            (p, group)
            for group in self.param_groups
            if group["algorithm"] == "htmuon"
            for p in group["params"]
            if activity[p] > INERT
        ]
        exchanged = [item for item in moving if is_dtensor(item[0]) or self.process_group is not None]
        yield from chunks(exchanged, EXCHANGE_ENTRIES)
        stacks = defaultdict(list)
        for p, group in moving:
            if not is_dtensor(p) and self.process_group is None:
                stacks[id(group), p.shape, p.dtype, p.device].append((p, group))
        for stack in stacks.values():
            yield from chunks(stack, stack_entries(stack[0][0].device))

    def _step_matrices(self, batch: list[tuple[Tensor, dict[str, Any]]]) -> None:
        groups = {p: group for p, group in batch}
        jobs = []
        for p, group in batch:
            state = self.state[p]
            counts = memory_counts(p, group)
            jobs.append(
                Job(
                    p,
                    _direction(p, local(state["momentum_buffer"]), group),
                    {name: local(state[name]) for name in counts},
                    tuple(counts.values()),
                    cost=float(sum(b * m * n * min(m, n) for b, m, n in reading_of(group).shapes(p.shape))),
                )
            )

        def compute(
            jobs: list[Job], directions: list[Tensor], memories: list[dict[str, Tensor]]
        ) -> list[tuple[Tensor, dict[str, Tensor]]]:
            return compute_updates([groups[job.parameter] for job in jobs], directions, memories)

        for (p, group), update in zip(batch, run_jobs(jobs, compute, self.process_group), strict=True):
            _apply(local(p), update, group)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as plain data: schedules are left out.

        Returns:
            See ``torch.optim.Optimizer.state_dict``.
        """
        state_dict = super().state_dict()
        for group in state_dict["param_groups"]:
            group.pop("power_schedule", None)
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a ``state_dict``. Schedules stay those that this optimizer was made with.

        Args:
            state_dict: Of an optimizer with the same parameters in the same groups.
        """
        schedules = [group.get("power_schedule") for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, schedule in zip(self.param_groups, schedules, strict=True):
            if schedule is not None:
                group["power_schedule"] = schedule
        # torch gives all state the dtype of the parameter; float32 momentum of a bfloat16 parameter would lose its digits
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


def _largest(gradients: list[Tensor | None]) -> list[float]:
    """The largest magnitude of each gradient; infinity if it is not finite, ``MISSING`` if there is none."""
    present = [i for i, grad in enumerate(gradients) if grad is not None and grad.numel()]
    largest = [MISSING if grad is None else INERT for grad in gradients]
    by_device = defaultdict(list)
    for i in present:
        by_device[gradients[i].device].append(i)  # type: ignore[union-attr]
    for indices in by_device.values():  # one transfer from each device
        extremes = [torch.stack(torch.aminmax(gradients[i])).double() for i in indices]  # type: ignore[arg-type]
        values = torch.stack(extremes).abs().amax(-1).nan_to_num(nan=float("inf"), posinf=float("inf"))
        for i, value in zip(indices, values.tolist(), strict=True):
            largest[i] = value
    return largest


def _direction(p: Tensor, buffer: Tensor, group: dict[str, Any]) -> Tensor:
    """The momentum after this step's gradient, contiguous. No gradient on this rank is a zero one."""
    grad = local_gradient(p)
    grad = torch.zeros_like(buffer) if grad is None else grad.to(buffer.dtype)
    buffer.lerp_(grad, 1 - group["momentum"])
    return (grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer).contiguous()


def _apply(p: Tensor, update: Tensor, group: dict[str, Any]) -> None:
    """Decay the weights, subtract the update."""
    lr, weight_decay = group["lr"], group["weight_decay"]
    if group["cautious"]:
        p.mul_(1 - lr * weight_decay * (update * p >= 0).to(p.dtype))
    else:
        p.mul_(1 - lr * weight_decay)
    if isinstance(lr, Tensor):
        p.sub_(lr * update)
    else:
        p.sub_(update, alpha=lr)


def _step_adamw(group: dict[str, Any], moving: list[Tensor], states: dict[Tensor, Any]) -> None:
    if not moving:
        return
    gradients = [local_gradient(p) for p in moving]
    beta1, beta2 = group["betas"]
    adamw(
        [local(p) for p in moving],
        [torch.zeros_like(local(p)) if g is None else g for p, g in zip(moving, gradients, strict=True)],
        [local(states[p]["exp_avg"]) for p in moving],
        [local(states[p]["exp_avg_sq"]) for p in moving],
        [],
        [states[p]["step"] for p in moving],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _read_schedule(group: dict[str, Any]) -> None:
    """Keep a schedule given as ``power`` aside, and put this step's number there."""
    if callable(group["power"]) or isinstance(group["power"], list | tuple):
        group["power_schedule"] = group["power"]
    schedule = group.get("power_schedule")
    if schedule is not None:
        group["power"] = float(power_at(schedule, group["step"]))
