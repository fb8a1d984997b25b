"""WeightWatcher's layers one at a time, with their weights as numpy arrays, for scripts that read or replace them."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import nn

from htsr.compat.matrices import Matrix, slices_of
from htsr.errors import InputError
from htsr.weights import Layer
from htsr.weights.source import Source


class FrameworkLayer:
    """A layer where its source keeps it.

    Attributes:
        layer: The module, or the name in a state dict or file.
        layer_id: WeightWatcher's id.
        name: The last component of a module's path, or the name in a state dict or file.
        longname: The whole path.
        the_type: Its type.
        skipped: Always False.
    """

    def __init__(self, source: Source, layer: Layer, layer_id: int) -> None:
        self._source, self._layer = source, layer
        self._replaced: np.ndarray | None = None  # what a state dict now holds in place of the tensor that was listed
        self.layer_id, self.longname, self.the_type, self.skipped = layer_id, layer.longname, layer.layer_type, False
        self.plot_id = str(layer_id)
        of_module = isinstance(source, nn.Module)
        self.name = layer.longname.rpartition(".")[2] if of_module else layer.longname
        self.layer = _module(source, layer) if of_module else layer.longname  # type: ignore[arg-type]

    def has_biases(self) -> bool:
        """Return whether the layer has a bias that the source gives access to."""
        return self._bias() is not None

    def get_weights_and_biases(self) -> tuple[bool, np.ndarray, bool, np.ndarray | None]:
        """Return the weight and the bias.

        Returns:
            True, the weight, whether there is a bias, and the bias or None.
        """
        bias, weight = self._bias(), self._replaced
        weight = _array(self._layer.load()) if weight is None else weight.copy()
        return True, weight, bias is not None, None if bias is None else _array(bias)

    def replace_layer_weights(self, W: np.ndarray, B: np.ndarray | None = None) -> None:
        """Write a weight, and a bias if one is given, into the model: into a module in place, into a state dict as new tensors.

        Args:
            W: The weight.
            B: The bias.

        Raises:
            InputError: If the source is a file, or the layer is only a part of a stored tensor, or the shape is another one.
        """
        if tuple(np.shape(W)) != self._layer.shape:
            raise InputError(
                f"layer {self.longname!r}: expected a weight of shape {self._layer.shape}, got {np.shape(W)}"
            )
        self._write("weight", W)
        self._replaced = _array(torch.as_tensor(np.ascontiguousarray(W)).to(self._layer.load().dtype))
        if B is not None and self.has_biases():
            self._write("bias", B)

    def _write(self, kind: str, values: np.ndarray) -> None:
        """Write the weight or the bias."""
        new = torch.as_tensor(np.ascontiguousarray(values))
        if isinstance(self._source, nn.Module):
            stored = getattr(self.layer, kind, None)
            parametrized = hasattr(self.layer, "parametrizations")
            if isinstance(stored, torch.Tensor) and not parametrized and stored.shape == new.shape:
                with torch.no_grad():
                    stored.copy_(new)
                return
        elif isinstance(self._source, MutableMapping):
            for key in (f"{self.longname}.{kind}", self.longname):
                stored = self._source.get(key)
                if isinstance(stored, torch.Tensor) and stored.shape == new.shape:
                    self._source[key] = new.to(stored.dtype)
                    return
                if isinstance(stored, np.ndarray) and stored.shape == new.shape:
                    self._source[key] = new.numpy().astype(stored.dtype)
                    return
        raise InputError(
            f"layer {self.longname!r} cannot be replaced: only whole weights of a module or a state dict can; load the model "
            "of a file first"
        )

    def _bias(self) -> Any:
        """Return the bias, or None."""
        if isinstance(self._source, nn.Module):
            return getattr(self.layer, "bias", None)
        return self._source.get(f"{self.longname}.bias") if isinstance(self._source, Mapping) else None


class WWLayer:
    """One matrix, or one pooled kernel, of a model, as WeightWatcher's iterators give it.

    Attributes:
        layer_id: WeightWatcher's id.
        name: The last component of a module's path, or the name in a state dict or file.
        longname: The whole path.
        the_type: Its type.
        N: The longer side of a slice.
        M: The shorter one.
        rf: The number of slices.
        num_components: The number of eigenvalues.
        Wmats: The weight: one array, or one for each slice of a kernel, loaded when first asked for.
        framework_layer: The layer where its source keeps it.
        skipped: Always False.
        has_weights: Always True.
    """

    def __init__(self, source: Source, matrix: Matrix) -> None:
        layer = matrix.layer
        self.framework_layer = FrameworkLayer(source, layer, matrix.layer_id)
        self.layer_id, self.longname, self.the_type = matrix.layer_id, layer.longname, layer.layer_type
        self.name = matrix.cells.get("name", self.framework_layer.name)
        self.plot_id = str(matrix.layer_id)
        self.N, self.M, self.rf = layer.N, layer.M, matrix.cells.get("rf", layer.rf)
        self.num_components = matrix.num_components or layer.num_evals
        self.skipped, self.has_weights = False, True
        self._matrix = matrix
        self._Wmats: list[np.ndarray] | None = None
        self.permute_ids: list[np.ndarray] = []

    @property
    def Wmats(self) -> list[np.ndarray]:
        """The weight as arrays, loaded when first asked for."""
        if self._Wmats is None:
            self._Wmats = slices_of(self._matrix.layer.load())
        return self._Wmats

    @Wmats.setter
    def Wmats(self, arrays: list[np.ndarray]) -> None:
        self._Wmats = arrays

    @property
    def weights(self) -> np.ndarray:
        """The weight as one array, as the source stores it."""
        return self.get_weights_and_biases()[1]

    @property
    def has_biases(self) -> bool:
        """Whether there is a bias."""
        return self.framework_layer.has_biases()

    @property
    def biases(self) -> np.ndarray | None:
        """The bias, or None."""
        return self.get_weights_and_biases()[3]

    def get_weights_and_biases(self) -> tuple[bool, np.ndarray, bool, np.ndarray | None]:
        """Return the weight and the bias.

        Returns:
            True, the weight, whether there is a bias, and the bias or None.
        """
        return self.framework_layer.get_weights_and_biases()

    def replace_layer_weights(self, W: np.ndarray, B: np.ndarray | None = None) -> None:
        """Write a weight and a bias into the model.

        Args:
            W: The weight.
            B: The bias.

        Raises:
            InputError: As ``FrameworkLayer.replace_layer_weights``.
        """
        self.framework_layer.replace_layer_weights(W, B)

    def __repr__(self) -> str:
        return f"WWLayer({self.layer_id} {self.longname!r}, {self.the_type}, {self.N} x {self.M} x {self.rf})"


def layers_of(source: Source, made: list[Matrix]) -> Iterator[WWLayer]:
    """Yield the matrices as WeightWatcher's layers."""
    for matrix in made:
        yield WWLayer(source, matrix)


def permute(layer: WWLayer, seed: int = 0) -> WWLayer:
    """Shuffle the entries of each of a layer's arrays, and remember the order."""
    generator = np.random.default_rng(seed)
    layer.permute_ids = [generator.permutation(W.size) for W in layer.Wmats]
    layer.Wmats = [W.reshape(-1)[ids].reshape(W.shape) for W, ids in zip(layer.Wmats, layer.permute_ids, strict=True)]
    return layer


def unpermute(layer: WWLayer) -> WWLayer:
    """Undo ``permute``."""
    restored = []
    for W, ids in zip(layer.Wmats, layer.permute_ids, strict=True):
        flat = np.empty(W.size, W.dtype)
        flat[ids] = W.reshape(-1)
        restored.append(flat.reshape(W.shape))
    layer.Wmats, layer.permute_ids = restored, []
    return layer


def _module(source: nn.Module, layer: Layer) -> Any:
    """Return the module that holds a layer, or the layer's path if it is only a part of one."""
    try:
        return source.get_submodule(layer.longname)
    except AttributeError:
        return layer.longname


def _array(tensor: Any) -> np.ndarray:
    """Return a copy of a tensor as an array that numpy can compute with."""
    if not isinstance(tensor, torch.Tensor):
        return np.array(tensor)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.itemsize < 4 else tensor).numpy().copy()
