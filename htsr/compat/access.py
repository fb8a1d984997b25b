"""WeightWatcher's methods that hand out single layers or write into the model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from htsr.compat.arguments import Options, parsed, valid_params
from htsr.compat.chosen import LIMITS, NO_LIMITS, ChosenLayers
from htsr.compat.constants import DEFAULT_PARAMS, LAYER_TYPE
from htsr.compat.iterators import WWLayer, layers_of, permute, unpermute
from htsr.compat.layers import Filters
from htsr.compat.smoothing import METHODS, sharpen, smooth
from htsr.weights.source import Source

_AS_IT_IS = "htsr reads a checkpoint where it is, one matrix at a time: WeightWatcher(model=directory)"
_OF_FORMATS = "htsr recognises formats by content: htsr.weights.open_source(source)"
_OF_VECTORS = "its entropy depends on the length of a vector; use htsr.analyze(..., vectors=True)"
# Methods of WeightWatcher that htsr.compat does not have, and what to do instead.
REFUSED_METHODS = {
    "extract_pytorch_bins": _AS_IT_IS,
    "extract_pytorch_statedict_": _AS_IT_IS,
    "extract_safetensors_config_": _AS_IT_IS,
    "describe_pytorch_bins": _AS_IT_IS,
    "analyze_pytorch_bins": _AS_IT_IS,
    "read_pystatedict_config": _AS_IT_IS,
    "write_pystatedict_config": _AS_IT_IS,
    "read_keras_h5_file": _OF_FORMATS,
    "infer_framework": _OF_FORMATS,
    "infer_model_file_format": _OF_FORMATS,
    "vector_metrics": _OF_VECTORS,
    "iterate_vectors": _OF_VECTORS,
    "valid_vectors": _OF_VECTORS,
    "analyze_vectors": "WeightWatcher itself raises AttributeError; use htsr.analyze(..., vectors=True)",
    "fit_powerlaw": "use htsr.fit_power_law(eigenvalues)",
    "mp_fit": "use htsr.fit_marchenko_pastur(eigenvalues, N, M)",
    "make_peft_layer_iterator": "use htsr.analyze(adapter_directory, base=model)",
}


class LayerAccess(ChosenLayers):
    """The methods that hand out single layers or write into the model."""

    def make_layer_iterator(
        self,
        model: Source | None = None,
        layers: Filters = (),
        params: Mapping[str, Any] | None = None,
        base_model: Source | None = None,
    ) -> Iterator[WWLayer]:
        """Iterate over the layers that ``analyze`` would analyse; a weight is loaded when it is first asked for.

        Args:
            model: The model; by default that of the constructor.
            layers: As in ``describe``.
            params: WeightWatcher's dictionary of parameters; its options for limits, ids and matrices count.
            base_model: As in ``analyze``.

        Returns:
            An iterator over the layers.

        Raises:
            TypeError: As ``describe``.
            ValueError: As ``describe``.
            InputError: As ``describe``.
        """
        source = self._model(model, base_model)
        options, limits, start_ids = _of_params(params)
        chosen, ids = self._chosen(source, layers, limits, start_ids, options)
        return layers_of(source, self._matrices(chosen, ids, options))

    def make_delta_layer_iterator(
        self,
        base_model: Source,
        model: Source | None = None,
        filters: Filters = (),
        params: Mapping[str, Any] | None = None,
    ) -> Iterator[WWLayer]:
        """Iterate over the differences between the layers of a model and those of the model it started from.

        Args:
            base_model: The model that is subtracted.
            model: The model; by default that of the constructor.
            filters: As ``layers`` in ``describe``.
            params: As in ``make_layer_iterator``.

        Returns:
            An iterator over the layers.

        Raises:
            TypeError: As ``describe``.
            ValueError: As ``describe``.
            InputError: As ``describe``.
        """
        return self.make_layer_iterator(model, filters, params, base_model)

    def get_Weights(
        self, model: Source | None = None, layer: int | str | None = None, params: Mapping[str, Any] | None = None
    ) -> list[np.ndarray]:
        """Return the weight of one layer.

        Args:
            model: The model; by default that of the constructor.
            layer: Its id or name; the first layer by default.
            params: As in ``make_layer_iterator``, but without its limits.

        Returns:
            One array, or one for each slice of a kernel.

        Raises:
            TypeError: As ``get_ESD``.
            InputError: As ``get_ESD``.
        """
        return self._one(model, layer, params).Wmats

    def get_framework_layer(
        self, model: Source | None = None, layer: int | str | None = None, params: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the module of one layer, or its name in a state dict or file.

        Args:
            model: The model; by default that of the constructor.
            layer: Its id or name; the first layer by default.
            params: As in ``get_Weights``.

        Returns:
            The module or the name.

        Raises:
            TypeError: As ``get_ESD``.
            InputError: As ``get_ESD``.
        """
        return self._one(model, layer, params).framework_layer.layer

    def _one(self, model: Source | None, layer: int | str | None, params: Mapping[str, Any] | None) -> WWLayer:
        """Return one layer, whatever its size."""
        source = self._model(model)
        options, _, start_ids = _of_params(params)
        chosen, ids = self._chosen(source, () if layer is None else layer, NO_LIMITS, start_ids)
        return next(layers_of(source, self._matrices(chosen, ids, options)))

    def apply_permute_W(self, ww_layer: WWLayer, params: object = None, *, seed: int = 0) -> WWLayer:
        """Shuffle the entries of a layer that an iterator gave; the model is not changed.

        Args:
            ww_layer: The layer, changed in place.
            params: Ignored, as in WeightWatcher.
            seed: Seed of the shuffle.

        Returns:
            The layer.
        """
        return permute(ww_layer, seed)

    def apply_unpermute_W(self, ww_layer: WWLayer, params: object = None) -> WWLayer:
        """Undo ``apply_permute_W``.

        Args:
            ww_layer: The layer, changed in place.
            params: Ignored, as in WeightWatcher.

        Returns:
            The layer.
        """
        return unpermute(ww_layer)

    def SVDSmoothing(
        self,
        model: Source | None = None,
        percent: float = 0.8,
        pool: bool = True,
        layers: Filters = (),
        method: str = "detX",
        fit: str = "PL",
        plot: bool = False,
        start_ids: int = 0,
        svd_method: str = "fast",
    ) -> Source:
        """Replace weights by the part that their leading singular directions span. This changes the model.

        Args:
            model: A module or a state dict; by default that of the constructor.
            percent: For ``method="svd"``: the share of the eigenvalues to keep, or, if negative, to leave out from the top.
            pool: Must be True, as in WeightWatcher.
            layers: As in ``describe``.
            method: How many directions are kept: ``"detX"`` those of the trace-log condition, ``"svd"`` a share, ``"rmt"`` the
                spikes above the bulk, ``"alpha_min"`` the tail of the power law, ``"auto"`` the bulk if alpha is above 6 and
                the trace-log condition otherwise.
            fit: Must be ``"PL"``.
            plot: Ignored, as in WeightWatcher.
            start_ids: As in ``describe``.
            svd_method: Ignored; the SVD runs in float64.

        Returns:
            The model.

        Raises:
            TypeError: As ``describe``.
            ValueError: If the method is unknown, or ``pool`` or ``fit`` is not supported.
            InputError: As ``describe``; also if the model is a file, or a layer is a part of a stored tensor.
        """
        if method not in METHODS:
            raise ValueError(f"expected method to be one of {', '.join(METHODS)}, got {method!r}")
        for layer in self._to_change(model, layers, start_ids, pool=pool, fit=fit):
            smooth(layer, method, percent)
        return self._model(None)

    def SVDSharpness(
        self,
        model: Source | None = None,
        pool: bool = True,
        layers: Filters = (),
        plot: bool = False,
        start_ids: int = 0,
        *,
        seed: int = 0,
    ) -> Source:
        """Take as many leading singular directions off each weight as its shuffled copy has spikes. This changes the model.

        The spikes of the shuffled weight come from single large entries, but the directions that are taken off are those of
        the weight itself, as in WeightWatcher: its signal. ``htsr.analyze(..., randomize=True)`` names the entries.

        Args:
            model: A module or a state dict; by default that of the constructor.
            pool: Must be True, as in WeightWatcher.
            layers: As in ``describe``.
            plot: Ignored.
            start_ids: As in ``describe``.
            seed: Seed of the shuffles.

        Returns:
            The model.

        Raises:
            TypeError: As ``describe``.
            ValueError: If ``pool`` is not True.
            InputError: As ``SVDSmoothing``.
        """
        for layer in self._to_change(model, layers, start_ids, pool=pool):
            sharpen(layer, seed)
        return self._model(None)

    def _to_change(
        self, model: Source | None, layers: Filters, start_ids: int, *, pool: bool, fit: str = "PL"
    ) -> Iterator[WWLayer]:
        """Yield the layers that are to be changed."""
        if not pool:
            raise ValueError("expected pool=True: a kernel is changed as a whole, as in WeightWatcher")
        options = parsed({"fit": fit})
        source = self._model(model)
        chosen, ids = self._chosen(source, layers, LIMITS, start_ids)
        return layers_of(
            source, [matrix for matrix in self._matrices(chosen, ids, options) if matrix.layer.tied_to is None]
        )

    @staticmethod
    def valid_params(params: Mapping[str, Any]) -> bool:
        """Say whether WeightWatcher would accept a dictionary of parameters such as ``DEFAULT_PARAMS``.

        Args:
            params: The parameters.

        Returns:
            Whether they are consistent.
        """
        return valid_params(params)

    @staticmethod
    def normalize_params(params: dict[str, Any]) -> dict[str, Any]:
        """Replace the short names of fits by the long ones.

        Args:
            params: The parameters, changed in place.

        Returns:
            The same dictionary.
        """
        if params["fit"] == "E_TPL":
            params["fix_fingers"] = "xmin_peak"
        names = {"PL": "power_law", "TPL": "truncated_power_law", "E_TPL": "truncated_power_law"}
        params["fit"] = names.get(params["fit"], params["fit"])
        return params

    @staticmethod
    def layer_type_from_str(str_type: str) -> str:
        """Return WeightWatcher's type of a layer by its name.

        Args:
            str_type: The name.

        Returns:
            The type, ``"unknown"`` if the name is none that WeightWatcher's files may hold.
        """
        known = (LAYER_TYPE.NORM, LAYER_TYPE.DENSE, LAYER_TYPE.CONV2D, LAYER_TYPE.CONV1D)
        return str_type if str_type in known else LAYER_TYPE.UNKNOWN


def _of_params(params: Mapping[str, Any] | None) -> tuple[Options, tuple[int, int, int], int]:
    """Return the options, limits and first id of WeightWatcher's dictionary of parameters."""
    if params is None:
        return Options(), LIMITS, 0
    if not valid_params(params):
        raise ValueError(f"expected parameters that WeightWatcher accepts, got {dict(params)!r}")
    p = {**DEFAULT_PARAMS, **params}
    names = ("pool", "conv2d_norm", "intra", "sparsify", "stacked", "inverse")
    options = parsed({name: p[name] for name in (*names, "peft", "fft", "conv2d_fft", "channels")})
    return options, (p["min_evals"], p["max_evals"], p["max_N"]), p["layer_ids_start"]


def _refusal(name: str, why: str) -> Callable[..., NoReturn]:
    """Return a method that says why WeightWatcher's method of this name does not exist here."""

    def refused(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"htsr.compat has no {name}: {why}")

    refused.__name__ = name
    refused.__doc__ = f"Not supported: {why}."
    return refused


for _name, _why in REFUSED_METHODS.items():
    setattr(LayerAccess, _name, staticmethod(_refusal(_name, _why)))
