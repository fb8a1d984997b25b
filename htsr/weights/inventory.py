"""The types of the pipeline from a source to its matrices: ``Listing -> Inventory -> Layer.load``.

A reader lists the tensors of its source (``Listing`` of ``StoredTensor``). ``split_into_layers`` turns them into the weights
that can be analysed (``Inventory`` of ``Layer``) and gives a reason for every other tensor (``Skipped``). No value is read before
``Layer.load``. Layers of a file can be pickled, so that another process can load them.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

import torch

from htsr.errors import InputError
from htsr.weights.parts import Part
from htsr.weights.roles import LayerRole
from htsr.weights.sides import Sides

# Reads a whole tensor (None) or some rows along its first dimension. A reader of a file opens the file and closes it again.
ReadRows = Callable[[slice | None], torch.Tensor]


def never_read(rows: slice | None) -> torch.Tensor:
    """Stand in for ``read`` in a tensor that has a reason; ``StoredTensor`` replaces it."""
    raise AssertionError("a skipped tensor must not be read")


@dataclass(frozen=True)
class Unreadable:
    """What ``read`` is for every tensor that has a reason, so that nobody can read what is refused."""

    reason: str

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Raise the reason."""
        raise InputError(self.reason)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a source, described but not loaded.

    Attributes:
        key: Its name without wrapper prefixes: ``encoder.0.weight``.
        shape: Its shape as stored.
        dtype: Its type as stored, named as torch names it (``bfloat16``) or, for block formats, as the format does (``Q4_K``).
        read: Reads the tensor, or some of its rows; raises the reason, if there is one.
        longkey: Its name exactly as the source spells it; empty if that is ``key``.
        role: What it does in its layer, if the source says; otherwise ``role_by_name`` infers it from name and shape.
        identity: A value that is equal for tensors that share memory; None if the source cannot tell.
        quantised: Whether ``read`` converts a type without floating-point values to one with them.
        reason: Why it cannot be analysed, if the reader knows that already.
        note: A caveat for the user.
        label: A part of its name that is already in brackets: ``[delta]``.
        num_params: How many parameters of the model it stands for: None if that is its number of elements, 0 if it is no tensor
            of the model or another tensor stands for it, more for a weight that is computed from several tensors.
        config: What the source says about the part of the model around it, if it says more than ``Listing.config``.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    read: ReadRows
    longkey: str = ""
    role: LayerRole | None = None
    identity: Hashable = None
    quantised: bool = False
    reason: str | None = None
    note: str = ""
    label: str = ""
    num_params: int | None = None
    config: Mapping[str, object] | None = None

    @property
    def params(self) -> int:
        """The number of parameters of the model that the tensor stands for."""
        return math.prod(self.shape) if self.num_params is None else self.num_params

    def __post_init__(self) -> None:
        if self.reason is not None:
            object.__setattr__(self, "read", Unreadable(self.reason))


@dataclass(frozen=True)
class OptimizerParameter:
    """What an optimizer's state dict holds for one parameter, which it often knows by a number alone.

    Attributes:
        place: Where the optimizer keeps the parameter: ``param_groups.0.params.3``.
        group: A value that is equal for the parameters of one group; None if the source does not tell the groups apart.
        states: Its tensors of at least one dimension, by the optimizer's own names: ``exp_avg``, ``momentum_buffer``.
        name: The parameter's name, if the source says it.
        path: The keys that lead from the whole checkpoint to the mapping of these tensors.
    """

    place: str
    group: Hashable
    states: Mapping[str, StoredTensor]
    name: str = ""
    path: tuple[Hashable, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Every tensor of a source, in the order of the source.

    Attributes:
        source: What was opened, for messages.
        tensors: The tensors.
        config: What the source says about the architecture: ``config.json``, ``model.config`` or the header of a GGUF file.
        optimized: The parameters of the optimizers whose state is stored beside the model, in the order of their groups.
        in_order: Whether the tensors of the model have the order of ``model.state_dict()``.
        state: The kind of optimizer state that the tensors are, ``exp_avg`` for instance; empty if they are weights.
        metadata: What the file says about itself: who made it, from what, when; see ``bounded_metadata``.
    """

    source: str
    tensors: list[StoredTensor]
    config: Mapping[str, object] = field(default_factory=dict)
    optimized: list[OptimizerParameter] = field(default_factory=list)
    in_order: bool = False
    state: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer(Sides):
    """One weight that can be analysed.

    Attributes:
        name: A name that is unique within the source: the module path without wrapper prefixes such as ``_orig_mod``. A part of
            a stored tensor adds its own name in brackets: ``attn.in_proj_weight[q]``, ``lstm.weight_ih_l0[f]``,
            ``experts.w1[3]``.
        longname: The same name with the path exactly as the source spells it.
        layer_type: ``dense``, ``embedding``, ``conv1d`` to ``conv3d``, ``conv_transpose1d`` to ``conv_transpose3d``,
            ``bilinear``, ``rnn``, ``lstm``, ``gru``, or ``stack`` for one of several matrices in one tensor.
        shape: Shape of the weight as analysed, ``(out, in)`` or ``(out, in, *kernel)``.
        load: Reads the weight and returns it. It can be pickled if the source is a file. Callers load one layer at a time, so
            that only one matrix is in memory.
        tied_to: ``name`` of the earlier layer that shares this weight, or None.
        dtype: Type of the weight as stored.
        note: A caveat for the user.
        num_params: How many parameters of the model it stands for; 0 if an earlier layer stands for the same ones.
    """

    name: str
    longname: str
    layer_type: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]
    tied_to: str | None = None
    dtype: str = ""
    note: str = ""
    num_params: int = 0

    @property
    def num_evals(self) -> int:
        """The number of eigenvalues of the weight."""
        return self.M * self.rf

    @property
    def cost(self) -> int:
        """The cost of decomposing the weight: multiplications for Gram matrices and eigenvalues, up to a constant factor."""
        return self.rf * self.M**2 * (self.N + 4 * self.M)


@dataclass(frozen=True)
class Skipped:
    """One tensor that is not analysed.

    Attributes:
        name: Its name.
        shape: Its shape as stored; empty if it has none.
        reason: Why it is not analysed.
        num_params: How many parameters of the model it stands for.
    """

    name: str
    shape: tuple[int, ...]
    reason: str
    num_params: int = 0


@dataclass(frozen=True)
class Inventory:
    """Every tensor of a source, either cut into layers or skipped with a reason, in model order.

    Attributes:
        source: What was opened, for messages.
        layers: The weights that can be analysed.
        skipped: All other tensors.
        state: The kind of optimizer state that the layers are, ``exp_avg`` for instance; empty if they are weights.
        metadata: What the file says about itself.
    """

    source: str
    layers: list[Layer]
    skipped: list[Skipped]
    state: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadPart:
    """A callable that loads one part of a stored tensor; it can be pickled if ``read`` can."""

    read: ReadRows = field(repr=False)
    part: Part

    def __call__(self) -> torch.Tensor:
        """Read the rows that the part needs and cut the part out of them; raise ValueError or OSError if they are damaged."""
        rows, part = self.part.rows_first()
        try:
            tensor = self.read(rows)
            weight = part.cut(tensor) if part.steps else tensor
        except (ValueError, OSError, MemoryError):
            raise
        except Exception as err:  # a reader of damaged bytes can raise anything; the other layers are still analysed
            raise ValueError(f"cannot be read ({type(err).__name__}: {str(err)[:200]})") from err
        if tuple(weight.shape) != self.part.shape:
            raise ValueError(f"read in shape {tuple(weight.shape)}, but listed as {self.part.shape}: the file changed")
        return weight
