"""A schedule that gives each layer its own learning rate, weight decay or power, by what its spectrum says."""

import logging
from collections.abc import Mapping
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from torch import nn
from torch.optim import Optimizer

from htsr.errors import InputError
from htsr.steering.arguments import Setting, check_arguments, described
from htsr.steering.arms import Arm, drawn_order, in_arm, restricted
from htsr.steering.groups import Swap, setting_of, split_groups, steerable
from htsr.steering.maps import Linear, Map, Mean, with_mean_one
from htsr.steering.matrices import Per, steered_units
from htsr.steering.signals import Reader, Signal, held_signal
from htsr.steering.target_alpha import TargetAlpha
from htsr.training.hooks import is_within_a_step
from htsr.training.monitor import Monitor
from htsr.training.optimizers import optimizers_of, skips_step
from htsr.weights.select import Patterns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)
# Steps between two readings of a model, as a Monitor captures by default.
EVERY = 100
# TempBalance and AlphaDecay steer no matrix with fewer eigenvalues.
MIN_EIGENVALUES = 50
# The settings of each optimizer that a schedule steers: two schedules of one setting would multiply each other.
_STEERED: WeakKeyDictionary[Optimizer, set[str]] = WeakKeyDictionary()


class LayerwiseSchedule:
    """Multiplies a setting of each layer by what a map makes of the layer's signal.

    ``signal -> map -> mean -> arm``: every few steps the schedule reads a signal of each layer, the map turns the signals into
    multipliers, their mean is brought to 1, and the arm hands them out. Within each step of the optimizer a layer's setting is
    what the user or a learning-rate scheduler wrote, times the layer's multiplier; between steps it is what they wrote. The
    schedule gives each steered matrix a parameter group of its own, so create it before a learning-rate scheduler.

    Args:
        optimizer: Any torch optimizer, possibly wrapped by accelerate or Lightning.
        source: The model, whose signal is then measured every few steps, and no more of it than the signal needs; or a
            ``Monitor`` of the model, whose captures are then read. A model that is sharded over processes needs a Monitor.
        setting: ``"lr"``, ``"weight_decay"``, or HTMuon's ``"power"``.
        signal: ``"alpha"`` or another numeric column of ``Analysis.details``, such as ``alpha_excess`` (alpha less that of noise
            of the same shape), ``alpha_fixed_aspect`` or ``stable_rank``; ``"hill"``, which is TempBalance's alpha; a
            ``TailAlpha``; or a function from a table like ``details``, indexed by layer, to a Series with the same index. A
            layer whose signal is missing, because its fit failed for instance, gets 1 and stays out of the mean; the log says so.
        map: ``Linear()``, ``Sigmoid()``, ``Step()``, or a function from an array of signals to one of multipliers; or
            ``TargetAlpha(...)``, which moves the power itself.
        mean: The mean of the multipliers that is held at 1: ``"arithmetic"``, ``"geometric"``, or None for none, as in all
            published presets. Every layer counts once, whatever its size. By default arithmetic, and None for ``TargetAlpha``.
        arm: ``"measured"``; ``"shuffled"``, the same multipliers on other layers, by a permutation that is drawn once;
            ``"inverted"``, the same multipliers mirrored by rank; or ``"uniform"``, which leaves the optimizer as it is.
        every: Steps between readings. By default every capture of a Monitor, or 100 steps of a model.
        dead_band: A layer's signal counts as moved only if the old one lies outside the new one's 95 % interval, times this
            number. That is alpha's bootstrap interval where the Monitor captured one or the schedule reads a model (50 resamples,
            most of the time of a reading), else 1.96 sigma; 1.96 for ``alpha_excess``; nothing for other signals. 0 takes all.
        seed: Seed of the permutation.
        per: ``"layer"``, or ``"block"`` to give all layers of a block one multiplier, by the mean of their signals.
        layers: Layers to steer, as in ``analyze``.
        skip: Layers not to steer, as in ``analyze``.
        min_eigenvalues: Do not steer matrices with fewer eigenvalues, whose alpha says little.
        ends: Steer embeddings, the input layer and the output layer, too. Type and name tell which these are, or else what the
            model defines first and last.
        follow: Let biases follow their matrix, and norms the matrix whose outputs they normalise.

    Attributes:
        units: The names of the steered layers or blocks, in model order.
        left_out: Why each other layer is not steered, by name.
        step_count: Steps done.
        multipliers: The multiplier of each unit, by name; with ``TargetAlpha`` its power.

    Raises:
        InputError: If no layer can be steered, or the Monitor does not capture the signal.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is unknown or out of range, the setting is zero everywhere so that no multiplier can change
            it, another schedule steers the same setting, or a learning-rate scheduler exists that has counted the groups.

    Notes:
        At construction the schedule reads the signal at once, so the first steps are steered by the spectra of the initial
        weights, as in TempBalance. If a step raises an error, the groups have their own settings again afterwards.

        The uniform arm does not split groups, which HTMuon would notice in the last bits: it stacks the matrices of a group.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> schedule = LayerwiseSchedule(optimizer, model, signal=lambda details: details["stable_rank"])
        >>> schedule.units
        ['1', '2']
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        source: nn.Module | Monitor,
        *,
        setting: Setting = "lr",
        signal: Signal = "alpha",
        map: Map | TargetAlpha | None = None,
        mean: Mean | Literal["auto"] | None = "auto",
        arm: Arm = "measured",
        every: int | None = None,
        dead_band: float = 1.0,
        seed: int = 0,
        per: Per = "layer",
        layers: Patterns = None,
        skip: Patterns = None,
        min_eigenvalues: int = MIN_EIGENVALUES,
        ends: bool = False,
        follow: bool = False,
    ) -> None:
        self._map: Map | TargetAlpha = Linear() if map is None else map
        mean = (None if isinstance(self._map, TargetAlpha) else "arithmetic") if mean == "auto" else mean
        check_arguments(source, setting, self._map, mean, arm, every, dead_band, per)
        self._setting, self._mean, self._arm, self._dead_band = setting, mean, arm, float(dead_band)
        self._reader = Reader(signal)
        self._monitor = source if isinstance(source, Monitor) else None
        self._model: nn.Module = source.model if isinstance(source, Monitor) else source
        self._every = every
        (self._optimizer,) = optimizers_of(optimizer)
        if setting in _STEERED.get(self._optimizer, ()):
            raise ValueError(
                f"expected an optimizer whose {setting} no other schedule steers, since both would multiply it: call remove() of "
                "the other one first"
            )
        if self._monitor is None and any(hasattr(p, "full_tensor") for p in self._model.parameters()):
            raise InputError("expected a Monitor of this model, whose weights are sharded: the Monitor gathers them")
        units, self.left_out = steered_units(
            self._model,
            steerable(self._optimizer, setting),
            layers=layers, skip=skip, min_eigenvalues=min_eigenvalues, ends=ends, follow=follow, per=per,
        )  # fmt: skip
        if not units:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.left_out.items())[:5])
            raise InputError(f"expected layers whose {setting} can be steered, got none ({reasons})")
        self.units = [unit.name for unit in units]
        self._layers = {unit.name: unit.layers for unit in units}
        owners = {id(p): unit.name for unit in units for p in (*unit.parameters, *unit.followers)}
        base = {
            owners[id(p)]: setting_of(group, setting)
            for group in self._optimizer.param_groups
            for p in group["params"]
            if id(p) in owners
        }
        if setting == "power" and not self._moves_power and not any(base.values()):
            raise ValueError("expected a power that multipliers can change, got 0 in every group to be steered")
        self._measured = np.array([base[name] if self._moves_power else 1.0 for name in self.units], dtype=np.float64)
        self._owners = {} if arm == "uniform" else owners
        split_groups(self._optimizer, self._owners)
        self._swap = Swap(setting)
        self._order = drawn_order(len(units), seed)
        self._held = np.full(len(units), np.nan)
        self._values = self._measured.copy()
        self._records: list[dict[str, Any]] = []
        self._warned_of: set[str] = set()
        self.step_count = 0
        self._read_at = -1
        self._read()
        self._handles = [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]
        self._guard_step()
        _STEERED.setdefault(self._optimizer, set()).add(setting)

    @property
    def multipliers(self) -> dict[str, float]:
        """The multiplier of each unit, by name; with ``TargetAlpha`` its power."""
        return dict(zip(self.units, self._values.tolist(), strict=True))

    def table(self) -> pd.DataFrame:
        """Say what was done: one row a reading and unit.

        Returns:
            ``step``, ``name``, ``signal`` as it was read, and ``multiplier``; with ``TargetAlpha`` ``power`` in its place.
        """
        frames = [
            pd.DataFrame(
                {"step": one["step"], "name": self.units, "signal": one["signal"], self._what: one["values"]}
            ) for one in self._records
        ]  # fmt: skip
        columns = ["step", "name", "signal", self._what]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the multiplier, or the power, of each unit against the step.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The axes.
        """
        from htsr.plots.runs.multipliers import plot_multipliers

        return plot_multipliers(self.table(), ax=ax)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as plain data.

        Returns:
            The state, which ``torch.save`` can keep beside those of the model, the optimizer and the scheduler.
        """
        return {
            "setting": self._setting,
            "signal": described(self._reader.signal),
            "map": described(self._map),
            "mean": self._mean,
            "arm": self._arm,
            "units": list(self.units),
            "step_count": self.step_count,
            "read_at": self._read_at,
            "order": list(self._order),
            "held": self._held.tolist(),
            "measured": self._measured.tolist(),
            "values": self._values.tolist(),
            "records": [dict(record) for record in self._records],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``, after which the run is bit for bit what it would have been.

        Create the schedule first, then the learning-rate scheduler, then load the states of all, in any order.

        Args:
            state_dict: The state of a schedule with the same setting, signal and arm over the same layers.

        Raises:
            InputError: If it comes from another schedule, or is none. Nothing has changed then.
        """
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        if missing:
            raise InputError(
                f"expected what state_dict() of a LayerwiseSchedule returned, got a state without {missing[0]!r}"
            )
        for name in ("setting", "signal", "map", "mean", "arm", "units"):
            if state_dict[name] != own[name]:
                raise InputError(
                    f"expected the state of a schedule with {name}={own[name]!r}, got {state_dict[name]!r}"
                )
        self.step_count, self._read_at = int(state_dict["step_count"]), int(state_dict["read_at"])
        self._order = [int(place) for place in state_dict["order"]]
        self._held, self._measured, self._values = (
            np.array(state_dict[name], dtype=np.float64) for name in ("held", "measured", "values")
        )
        self._records = [dict(record) for record in state_dict["records"]]

    def remove(self) -> None:
        """Stop steering; the groups stay split."""
        for handle in self._handles:
            handle.remove()
        _STEERED.get(self._optimizer, set()).discard(self._setting)

    def __repr__(self) -> str:
        return (
            f"LayerwiseSchedule({self._setting} of {len(self.units)} units by {self._reader.signal!r}, map={self._map}, "
            f"mean={self._mean!r}, arm={self._arm!r}, step={self.step_count})"
        )

    @property
    def _moves_power(self) -> bool:
        return isinstance(self._map, TargetAlpha)

    @property
    def _what(self) -> str:
        return "power" if self._moves_power else "multiplier"

    def _before_step(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        """Put the layers' own settings into their groups for this step."""
        if is_within_a_step(optimizer):
            return
        self._read_capture()
        self._swap.restore()
        values = self.multipliers
        for group in optimizer.param_groups:  # looked up anew: load_state_dict makes new groups
            owner = self._owners.get(id(group["params"][0])) if group["params"] else None
            if owner is not None:
                self._swap.put(group, values[owner], factor=not self._moves_power)

    def _after_step(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        """Put the groups' own settings back, count the step, and read the signal if it is time."""
        if is_within_a_step(optimizer):
            return
        self._swap.restore()
        if skips_step(optimizer):
            return
        self.step_count += 1
        if self._monitor is not None:
            self._read_capture()
        elif self.step_count % (self._every or EVERY) == 0:
            self._read()

    def _guard_step(self) -> None:
        """Put the groups' own settings back when a step raises, which torch's hooks after a step do not see.

        torch's own schedulers wrap ``optimizer.step`` in the same way.
        """
        inner, swap = self._optimizer.step, self._swap

        @wraps(inner)
        def step(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            try:
                return inner(*args, **kwargs)
            finally:
                swap.restore()

        self._optimizer.step = MethodType(step, self._optimizer)  # type: ignore[method-assign]

    def _read_capture(self) -> None:
        """Read the Monitor's last capture, unless it was read before or lies between the steps to read."""
        capture = self._monitor.last_capture if self._monitor is not None else None
        if capture is not None and capture.step > self._read_at and capture.step % (self._every or 1) == 0:
            self._read()

    def _read(self) -> None:
        """Read the signal as it is now, and let it steer."""
        names = [layer for layers in self._layers.values() for layer in layers]
        if self._monitor is None:
            self._read_at = self.step_count
            reading = self._reader.read_model(self._model, names, interval=self._dead_band > 0)
        elif self._monitor.last_capture is not None:
            self._read_at = self._monitor.last_capture.step
            reading = self._reader.read_capture(self._monitor.last_capture, names)
        else:
            return  # a run that goes on in its directory, which holds this step already
        units = {layer: name for name, layers in self._layers.items() for layer in layers}
        self._act(reading.groupby(units, sort=False).mean().loc[self.units])

    def _act(self, reading: pd.DataFrame) -> None:
        """Turn the units' signals into the values that their groups get."""
        if isinstance(self._map, TargetAlpha):
            value = reading["value"]
            low, high = (value + self._dead_band * (reading[end] - value) for end in ("low", "high"))
            self._measured = self._map(self._measured, value, low, high)
            self._values = in_arm(self._measured, self._arm, self._order) if self._arm != "uniform" else self._values
        else:
            self._held = held_signal(self._held, reading, self._dead_band)
            present = np.flatnonzero(~np.isnan(self._held))
            mapped = np.asarray(self._map(self._held[present]), dtype=np.float64)
            if mapped.shape != present.shape or not (np.isfinite(mapped) & (mapped >= 0)).all():
                raise ValueError(f"expected map to return {len(present)} finite multipliers >= 0, got {mapped}")
            self._measured = np.ones(len(self.units))
            self._measured[present] = with_mean_one(mapped, self._mean)
            self._values = self._measured.copy()
            self._values[present] = in_arm(
                self._measured[present], self._arm, restricted(self._order, present.tolist())
            )
        self._warn_of_missing(reading["value"])
        signal, values = reading["value"].tolist(), self._values.tolist()
        self._records.append({"step": self._read_at, "signal": signal, "values": values})

    def _warn_of_missing(self, signal: pd.Series) -> None:
        """Say once of each unit that it has no signal, such as an alpha that could not be fitted, and what it gets then."""
        new = [name for name in self.units if np.isnan(signal[name]) and name not in self._warned_of]
        if new:
            gets = "keep their power" if self._moves_power else "get the multiplier 1"
            some = ", ".join(new[:5]) + (", ..." if new[5:] else "")
            logger.warning(
                "no %r of %d of %d units, which %s: %s", self._reader.signal, len(new), len(self.units), gets, some
            )
        self._warned_of.update(new)
