"""Give each quantised weight of a listing to the scheme that knows it, and skip the tensors beside it."""

import re
from collections.abc import Callable
from dataclasses import replace

from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.readers.quantised.awq import dequantise_awq
from htsr.weights.readers.quantised.bitsandbytes import dequantise_4bit, dequantise_8bit
from htsr.weights.readers.quantised.fp4 import dequantise_fp4
from htsr.weights.readers.quantised.gptq import dequantise_gptq
from htsr.weights.readers.quantised.groups import FP8, Group, group_siblings, quantisation_settings
from htsr.weights.readers.quantised.mlx import dequantise_mlx
from htsr.weights.readers.quantised.pack_quantized import dequantise_packed
from htsr.weights.readers.quantised.scaled import dequantise_scaled

# A scheme returns the weight, a reason if it knows the tensors but their shapes or settings are wrong, or None if it does not
# know them. A name alone never decides.
Scheme = Callable[[Group], StoredTensor | str | None]
SCHEMES: tuple[Scheme, ...] = (
    dequantise_gptq,
    dequantise_awq,
    dequantise_packed,
    dequantise_fp4,
    dequantise_4bit,
    dequantise_8bit,
    dequantise_mlx,
    dequantise_scaled,
)
# Values of quant_method whose libraries store integers in an order of their own under the names of other schemes.
REORDERED = {
    "aqlm",
    "bitblas",
    "eetq",
    "exl3",
    "fp_quant",
    "higgs",
    "hqq",
    "marlin",
    "qqq",
    "quip",
    "sinq",
    "spqr",
    "vptq",
}
# Names that only tensors beside a quantised weight have, in a source that is quantised.
ORPHAN = re.compile(
    r"(.*[._])?(weight_)?(scale_inv|qzeros|g_idx|SCB|absmax|quant_map|weight_scale(_2)?|weight_global_scale|weight_zero_point"
    r"|(input|output|[qkv]|kv)_(scale|zero_point|global_scale))"
)
# Where compressed-tensors stores the values of a sparse weight, beside the bits that say where they belong.
SPARSE = re.compile(r"(?P<module>.*)\.compressed")
ADVICE = "dequantise it first with the library that quantised it"


def multiply_scales(listing: Listing) -> Listing:
    """Return the listing with quantised weights multiplied out as their libraries do it, and the tensors beside them skipped."""
    groups = group_siblings(listing.tensors, listing.config)
    weights = {group.main.key: group for group in groups}
    owner = {key: group.main.key for group in groups for key in group.beside}
    is_quantised = bool(owner) or bool(quantisation_settings(listing.config))
    keys = {stored.key for stored in listing.tensors}
    tensors = []
    for stored in listing.tensors:
        if stored.reason is not None or stored.role is not None or stored.quantised:
            tensors.append(stored)
        elif stored.key in owner:
            part = f"part of the quantised weight {owner[stored.key]}"
            tensors.append(replace(stored, reason=part, num_params=0))
        elif stored.key in weights:
            found = _dequantised(weights[stored.key], is_quantised)
            tensors.append(
                found if found.key in (stored.key, *({found.key} - keys)) else replace(found, key=stored.key)
            )
        elif (sparse := SPARSE.fullmatch(stored.key)) and f"{sparse['module']}.bitmask" in keys:
            tensors.append(replace(stored, reason=f"the values of a sparse weight without its zeros: {ADVICE}"))
        elif is_quantised and ORPHAN.fullmatch(stored.key):
            scales = "scales of a quantised weight, activation or cache"
            tensors.append(replace(stored, reason=scales, num_params=0))
        else:
            tensors.append(stored)
    return replace(listing, tensors=tensors)


def _dequantised(group: Group, is_quantised: bool) -> StoredTensor:
    """Return the weight of a group multiplied out, or with the reason why it is not."""
    main = group.main
    if not group.parts:
        if is_quantised and FP8.fullmatch(main.dtype):
            return replace(
                main, reason=f"{main.dtype} without scales, in a source that has quantised weights: {ADVICE}"
            )
        return main
    for part in group.parts.values():
        if part.reason is not None:
            return replace(main, reason=f"{part.key} beside it cannot be read: {part.reason}")
    method = group.settings.get("quant_method")
    reasons = []
    if not (isinstance(method, str) and method in REORDERED):
        for scheme in SCHEMES:
            found = scheme(group)
            if isinstance(found, StoredTensor):
                return found
            if found is not None:
                reasons.append(found)
    beside = ", ".join(f"{name} ({part.dtype}, {part.shape})" for name, part in sorted(group.parts.items()))
    said = f" by {method}" if isinstance(method, str) else ""
    unknown = (
        f"quantised{said} in a way that is not known here, with {beside} beside {main.dtype} of shape {main.shape}"
    )
    return replace(main, reason=f"{reasons[0] if reasons else unknown}: {ADVICE}")
