"""Snapshots of one step: weights, gradients, momentum, updates, and how far each layer moved.

A gradient, a momentum buffer or an update has the shape of its parameter. The camera therefore finds a layer's part of it as
it finds the layer's weight: by the parameter's name, or by the memory that the weight is a view of.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.training.optimizers import labels_of, parameters_of, unstepped
from htsr.training.store.capture import WEIGHTS
from htsr.weights import Layer, open_source, select
from htsr.weights.inventory import Inventory
from htsr.weights.select import Patterns

# The keys under which optimizers keep their running mean of gradients: SGD, Muon and HTMuon; Adam and its family; others.
MOMENTUM = ("momentum_buffer", "exp_avg", "momentum", "m")
# Some optimizers count their steps in the group, under names that ``History.groups`` has for its own columns.
COUNTERS = ("step", "group")

Cut = Callable[[Tensor], Tensor]
# Returns the gradient, momentum or update of a parameter, or the reason why it has none.
Find = Callable[[Tensor], Tensor | str]


@dataclass(frozen=True)
class Snapshot:
    """The layers of a model and its optimizer's groups at one step."""

    quantities: dict[str, Inventory]  # layers whose ``load`` returns the values of the quantity at this step
    order: list[str]  # names of all layers, in model order, also of those that another rank keeps
    changes: dict[str, dict[str, float]]  # distance and relative_distance of each layer, by name
    steps: dict[str, dict[str, object]]  # what the step was beside its optimizer's promise, by name of the layer
    groups: list[
        dict[str, object]
    ]  # of all optimizers: settings that are numbers or words, update_rms, and the optimizer's name
    missing: dict[str, str]  # quantities that somebody asked for and no layer has, with the reason


class Camera:
    """Takes snapshots of a model and its optimizers, and changes neither.

    Without an optimizer there are no momentum, updates, distances and groups. With ``copy``, snapshots hold copies in main
    memory, which another thread may read while the training goes on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        layers: Patterns,
        skip: Patterns,
        quantities: Collection[str],
        copy: bool,
        per_head: bool = False,
    ) -> None:
        self._model, self._optimizers = model, optimizers
        self._layers, self._skip = layers, skip
        self._quantities, self._copy, self._per_head = quantities, copy, per_head
        self._before: dict[int, Tensor] = {}  # the parameters before the step, by their id
        self._gradients: dict[int, Tensor | str] = {}  # of the step, or why there is none, by the parameter's id

    def inventory(self) -> Inventory:
        """Return the layers as they are now."""
        return select(open_source(self._model, per_head=self._per_head), self._layers, self._skip)

    @torch.no_grad()
    def keep_parameters(self, optimizer: Optimizer) -> None:
        """Keep the parameters that an optimizer is about to change."""
        for p in parameters_of(optimizer):
            if not nn.parameter.is_lazy(p) and id(p) not in self._before:
                self._before[id(p)] = p.detach().clone()

    @torch.no_grad()
    def keep_gradients(self, optimizer: Optimizer, mine: Collection[str] | None = None) -> None:
        """Keep the gradients of the parameters that an optimizer steps, and of those that none does, if somebody asked for them.

        ``mine`` names the layers whose values this process keeps, None meaning all.
        """
        if "gradients" not in self._quantities:
            return
        own = {id(p) for p in parameters_of(optimizer)}
        others = {id(p) for other in self._optimizers for p in parameters_of(other)} - own
        places = self._places()
        read: dict[int, bool] = {}  # by the parameter's id: whether this process needs the gradient's values
        for layer in self.inventory().layers:
            place = places(layer) if layer.tied_to is None else None
            if place is not None and id(place[0]) not in others:
                parameter = place[0]
                gradient = _gradient(getattr(optimizer, "grad_scale", None), parameter)
                needed = _is_mine(layer, mine) or hasattr(gradient, "full_tensor")  # all processes gather a sharded one
                if needed > read.get(id(parameter), -1):
                    read[id(parameter)] = needed
                    if needed and isinstance(gradient, Tensor):
                        gradient = gradient.detach().clone()
                    self._gradients[id(parameter)] = gradient

    def unstepped(self) -> list[str]:
        """Return the names of the trainable parameters that no optimizer holds; none if nobody named an optimizer."""
        return unstepped(self._model, self._optimizers) if self._optimizers else []

    def forget(self) -> None:
        """Forget what was kept of the step."""
        self._before, self._gradients = {}, {}

    @torch.no_grad()
    def shoot(self, mine: Collection[str] | None = None, between_steps: bool = False) -> Snapshot:
        """Return a snapshot; unless the camera copies, it holds the model's own tensors and changes with them.

        ``mine`` names the layers whose values this process keeps, None meaning all; all processes gather the sharded weights of
        all layers in the same order. ``between_steps`` says that the gradients may be gone or belong to the next step.
        """
        inventory = self.inventory()
        places = self._places()
        groups, deltas = self._changes()
        changes: dict[str, dict[str, float]] = {}
        found_at: dict[str, tuple[Tensor, Cut]] = {}
        for layer in inventory.layers:
            place = places(layer) if layer.tied_to is None else None
            if place is not None:
                found_at[layer.name] = place
            if place is not None and id(place[0]) in deltas:
                parameter, cut = place
                distance = float(torch.linalg.vector_norm(cut(deltas[id(parameter)])))
                before = float(torch.linalg.vector_norm(cut(_full(self._before[id(parameter)]))))
                changes[layer.name] = {"distance": distance}
                if before > 0:
                    changes[layer.name]["relative_distance"] = distance / before
        steps = self._steps(found_at, mine, between_steps) if "updates" in self._quantities else {}
        finders: dict[str, Find] = {
            "gradients": partial(self._gradient_of_step, between_steps),
            "momentum": self._momentum,
            "updates": partial(_update, deltas),
        }
        quantities: dict[str, list[Layer]] = {}
        missing: dict[str, str] = {}
        for quantity in self._quantities:
            if quantity == WEIGHTS:
                quantities[quantity] = [self._kept(layer, mine) for layer in inventory.layers]
                continue
            found, reason = self._of_layers(inventory, places, finders[quantity], mine)
            if found:
                quantities[quantity] = found
            else:
                missing[quantity] = reason
        self.forget()
        return Snapshot(
            {
                quantity: Inventory(inventory.source, [layer for layer in found if _is_mine(layer, mine)], [])
                for quantity, found in quantities.items()
            },
            [layer.name for layer in inventory.layers],
            changes,
            steps,
            groups,
            missing,
        )

    def _steps(
        self, places: Mapping[str, tuple[Tensor, Cut]], mine: Collection[str] | None, between_steps: bool
    ) -> dict[str, dict[str, object]]:
        """Return what the step did to the layers, beside what their optimizers promise; nothing if the camera saw no step."""
        if not self._before:
            return {}
        from htsr.dynamics.step_layers import step_cells

        gradients = {}
        for p, _ in places.values():
            gradient = self._gradients.get(id(p), None if between_steps else p.grad)
            if isinstance(gradient, Tensor) and not hasattr(gradient, "full_tensor"):
                gradients[id(p)] = gradient
        return step_cells(self._model, self._optimizers, places, self._before, gradients, mine)

    def _changes(self) -> tuple[list[dict[str, object]], dict[int, Tensor]]:
        """Return each optimizer's groups, with the root mean square of the update, and the update of each parameter by its id."""
        groups: list[dict[str, object]] = []
        deltas: dict[int, Tensor] = {}
        for label, optimizer in zip(labels_of(self._optimizers), self._optimizers, strict=True):
            for group in optimizer.param_groups:
                squares, count = 0.0, 0
                for p in group["params"]:
                    if id(p) in self._before:
                        after = _full(p.detach())
                        wide = torch.promote_types(after.dtype, torch.float32)
                        delta = after.to(wide) - _full(self._before[id(p)]).to(wide)
                        squares += float(
                            delta.double().square().sum() if delta.device.type != "mps" else delta.square().sum()
                        )
                        count += delta.numel()
                        if delta.ndim >= 2:
                            deltas[id(p)] = delta
                rms = {"update_rms": (squares / count) ** 0.5} if count else {}
                groups.append({**_settings(group), **rms, "optimizer": label})
        return groups, deltas

    def _kept(self, layer: Layer, mine: Collection[str] | None) -> Layer:
        """Return a layer that loads a gathered or copied weight, or the layer itself if its weight can be read in place."""
        if layer.tied_to is not None:
            return layer
        sharded = any(hasattr(p, "full_tensor") for p in self._model.parameters())
        if not sharded and (not self._copy or not _is_mine(layer, mine)):
            return layer
        try:
            weight = _full(layer.load())
        except ValueError as err:  # its row gives this as the reason
            return replace(layer, load=partial(_refuse, str(err)))
        if not _is_mine(layer, mine):
            return layer
        return replace(layer, load=_Once(weight.to("cpu", copy=True) if self._copy else weight))

    def _of_layers(
        self,
        inventory: Inventory,
        places: "Callable[[Layer], tuple[Tensor, Cut] | None]",
        find: Find,
        mine: Collection[str] | None,
    ) -> tuple[list[Layer], str]:
        """Return the layers with ``find(parameter)`` as their value, or an empty list and the reason if no layer has one."""
        found, any_value, reason = [], False, "there are no layers"
        for layer in inventory.layers:
            place = places(layer) if layer.tied_to is None else None
            value = find(place[0]) if place is not None else "its weight is computed from several parameters"
            if isinstance(value, Tensor):
                assert place is not None
                any_value = True
                whole = _full(value.detach())
                if _is_mine(layer, mine):
                    part = place[1](whole.to_dense() if whole.is_sparse else whole)
                    load: Callable[[], Tensor] = _Once(part.to("cpu", copy=True) if self._copy else part.clone())
                    found.append(replace(layer, load=load))
                else:
                    found.append(layer)
            else:
                reason = value
                found.append(replace(layer, load=partial(_refuse, value)))
        return (found, "") if any_value else ([], reason)

    def _gradient_of_step(self, between_steps: bool, parameter: Tensor) -> Tensor | str:
        """Return the gradient that was kept of this step, or the parameter's own if there is no optimizer to keep it before."""
        if id(parameter) in self._gradients:
            return self._gradients[id(parameter)]
        if between_steps:
            return "no gradient: close() was called between two steps, and the gradient may belong to another step"
        if self._optimizers:
            return "no gradient: no optimizer stepped this parameter in this step"
        return _gradient(None, parameter)

    def _momentum(self, parameter: Tensor) -> Tensor | str:
        states = (optimizer.state.get(parameter, {}) for optimizer in self._optimizers)
        value = next((state[key] for state in states for key in MOMENTUM if isinstance(state.get(key), Tensor)), None)
        return f"no momentum: the optimizer keeps none of {', '.join(MOMENTUM)} for it yet" if value is None else value

    def _places(self) -> "Callable[[Layer], tuple[Tensor, Cut] | None]":
        """Return a function from a layer to its parameter and the cut that yields the layer's part, or None if it has none."""
        named = dict(self._model.named_parameters(remove_duplicate=False))
        by_memory = {
            p.untyped_storage().data_ptr(): p
            for p in named.values()
            if not nn.parameter.is_lazy(p) and not hasattr(p, "full_tensor") and p.is_contiguous()
        }

        def place(layer: Layer) -> tuple[Tensor, Cut] | None:
            for key in (f"{layer.longname}.weight", layer.longname):
                if key in named and tuple(named[key].shape) == layer.shape:
                    return named[key], lambda tensor: tensor
            try:
                view = layer.load()
            except ValueError:
                return None
            parameter = by_memory.get(view.untyped_storage().data_ptr()) if not hasattr(view, "full_tensor") else None
            if parameter is None:
                return None
            start = view.storage_offset() - parameter.storage_offset()
            return parameter, lambda tensor: tensor.contiguous().as_strided(view.shape, view.stride(), start)

        return place


class _Once:
    """Returns a tensor once, and frees it then."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor: Tensor | None = tensor

    def __call__(self) -> Tensor:
        tensor, self._tensor = self._tensor, None
        assert tensor is not None
        return tensor


def _refuse(reason: object) -> Tensor:
    raise ValueError(reason)


def _gradient(scale: Tensor | None, parameter: Tensor) -> Tensor | str:
    """Return a parameter's gradient, divided by the ``scale`` that a loss scaler leaves to a fused optimizer, or the reason."""
    if parameter.grad is None:
        return "no gradient: the parameter is frozen or was not used"
    return parameter.grad if scale is None else parameter.grad / scale


def _update(deltas: Mapping[int, Tensor], parameter: Tensor) -> Tensor | str:
    return deltas.get(
        id(parameter), "no update: the optimizer does not update this parameter, or the Monitor did not see its step"
    )


def _full(tensor: Tensor) -> Tensor:
    """Return the whole tensor; gathering one that is sharded over processes (DTensor) takes all of them."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _is_mine(layer: Layer, mine: Collection[str] | None) -> bool:
    return mine is None or (layer.tied_to or layer.name) in mine


def _settings(group: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings of a parameter group that are numbers or words."""
    settings = {
        key: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value for key, value in group.items()
    }
    return {
        key: value for key, value in settings.items() if isinstance(value, int | float | str) and key not in COUNTERS
    }
