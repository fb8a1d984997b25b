"""What a source holds, before any matrix is loaded.

A reader lists the tensors of its source (``Listing`` of ``StoredTensor``); ``layout`` makes of them the weights that can be
analysed (``Inventory`` of ``Layer``). Everything that reads is picklable, so that another process can load a layer.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

import torch

from htsr.weights.parts import Part
from htsr.weights.roles import LayerRole
from htsr.weights.sides import Sides

# Reads a tensor, or some rows of it along the first dimension; opens its file itself and closes it again.
ReadRows = Callable[[slice | None], torch.Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a source.

    Attributes:
        key: Its name as people know it, wrapper prefixes stripped: ``encoder.0.weight``.
        shape: Its shape as stored.
        dtype: Its type as stored, in torch's words (``bfloat16``) or, for block formats, in the format's (``Q4_K``).
        read: Reads it, or some of its rows.
        longkey: Its name exactly as the source spells it; ``key`` by default.
        role: What it does, where the source tells; else it is judged by name and shape.
        identity: Equal for tensors that share memory; None if the source cannot tell.
        quantised: ``read`` computes floating-point values from a type that holds none.
        reason: Why it cannot be analysed, where the reader knows.
        note: What to be wary of.
        label: What its name has in brackets already: ``[delta]``.
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


@dataclass(frozen=True)
class Listing:
    """Every tensor of a source, in its order.

    Attributes:
        source: What was opened, in words for people.
        tensors: The tensors.
        config: What is said beside them of the architecture: ``config.json``, ``model.config``, the header of a GGUF file.
    """

    source: str
    tensors: list[StoredTensor]
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer(Sides):
    """One weight that can be analysed.

    Attributes:
        name: Unique within the source: the module path, wrapper prefixes such as ``_orig_mod`` stripped. A part of a stored
            tensor has its own name in brackets: ``attn.in_proj_weight[q]``, ``lstm.weight_ih_l0[f]``, ``experts.w1[3]``.
        longname: The same with the path exactly as the source spells it.
        layer_type: ``dense``, ``embedding``, ``conv1d`` to ``conv3d``, ``conv_transpose1d`` to ``conv_transpose3d``,
            ``bilinear``, ``rnn``, ``lstm``, ``gru``, or ``stack`` for one of several matrices in one tensor.
        shape: Shape of the weight as analysed, ``(out, in)`` or ``(out, in, *kernel)``.
        load: Returns the weight. Called at most once, so that one matrix at a time is in memory. Picklable for files.
        tied_to: ``name`` of the earlier layer that shares this weight, or None.
        dtype: Its type as stored.
        note: What to be wary of.
    """

    name: str
    longname: str
    layer_type: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]
    tied_to: str | None = None
    dtype: str = ""
    note: str = ""

    @property
    def num_evals(self) -> int:
        """How many eigenvalues it has."""
        return self.M * self.rf

    @property
    def cost(self) -> int:
        """Multiplications of the Gram matrices and their eigenvalues, up to a factor."""
        return self.rf * self.M**2 * (self.N + 4 * self.M)


@dataclass(frozen=True)
class Skipped:
    """One tensor that is not analysed, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Inventory:
    """Every weight of a source, each in exactly one of two lists, in model order.

    Attributes:
        source: What was opened, in words for people.
        layers: Weights that can be analysed.
        skipped: All other tensors, each with a reason.
    """

    source: str
    layers: list[Layer]
    skipped: list[Skipped]


@dataclass(frozen=True)
class LoadPart:
    """Loads one part of a stored tensor."""

    read: ReadRows = field(repr=False)
    part: Part

    def __call__(self) -> torch.Tensor:
        """Read the rows that the part needs, and cut it out of them."""
        rows, part = self.part.rows_first()
        tensor = self.read(rows)
        return part.cut(tensor) if part.steps else tensor
