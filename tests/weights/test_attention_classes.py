"""Every fused projection in the installed transformers: htsr splits it as its attention does, or leaves it whole."""

import ast
import importlib
import inspect
import itertools
import os
import re
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.modules import read_module
from htsr.weights.splitting import Splitting, split_into_layers

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# Names of projections that fuse several, and classes that have such names for something else: mixers of state-space models,
# short convolutions and projections of positions or codes.
FUSED = re.compile(
    r"\w*(qkv|query_key_value|c_attn|att_proj|kv_proj|to_kv|linear_kv|kv_b_proj|q_gate_proj|in_proj)\w*|proj|qkv_linear"
)
OTHER = re.compile(r"Mamba|Mixer|MLP|ShortConv|Quantize|Embedding|Projection|Projector|Resampler|Output")
LAYERS = re.compile(r"(num_)?(hidden_|encoder_|decoder_)?layers?|n_layers?|(en|de)coder_layers|depth|num_mem_blocks")
BILINEAR = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention")
# Settings that give a model type another layout than its default.
VARIANTS = {
    "falcon": [{}, {"multi_query": False}, {"new_decoder_architecture": True, "num_kv_heads": 1}],
    "gpt_bigcode": [{}, {"multi_query": False}, {"add_cross_attention": True}],
    "gpt2": [{}, {"add_cross_attention": True}],
    "dbrx": [{"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 4, "clip_qkv": 8.0}}],
    "phi3": [{"num_key_value_heads": 8}],
    "jetmoe": [{"num_key_value_heads": 8}],
    "esm": [{"is_folding_model": True, "vocab_list": list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456"), "vocab_size": 33,
             "pad_token_id": 1, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40}],
}  # fmt: skip
# Models that cannot be built without another package, or not on the meta device: the attention, and its name in the model.
ALONE = {
    ("codegen", "CodeGenAttention"): ("h.0.attn", {"n_embd": 256, "n_head": 8, "rotary_dim": 16}),
    ("layoutlmv2", "LayoutLMv2SelfAttention"): (
        "encoder.layer.0.attention.self",
        {"fast_qkv": True, "has_relative_attention_bias": False, "has_spatial_attention_bias": False},
    ),
}


def fused_projections():
    """Return the classes, and the names in them, that call a layer by the name of a fused projection, by folder."""
    found = defaultdict(set)
    root = Path(transformers.__file__).parent / "models"
    for file in sorted(root.glob("*/modeling_*.py")):
        for cls in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)):
            for node in ast.walk(cls):
                match node:
                    case ast.Assign(
                        targets=[ast.Attribute(ast.Name("self"), name)], value=ast.Call(args=[_, wide, *_]) as call
                    ):
                        kind = ast.unparse(call.func)
                        named = FUSED.fullmatch(name) and (name != "proj" or re.search(r"\b3\b", ast.unparse(wide)))
                        if named and re.search(r"Linear|Conv1D", kind) and not OTHER.search(cls.name):
                            found[file.parent.name].add((cls.name, name))
    return found


class Products(TorchFunctionMode):
    """Records the factors of every product of two tensors."""

    def __init__(self):
        self.factors = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ in BILINEAR:
            tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
            tensors += [x for group in args if isinstance(group, list | tuple) for x in group]
            self.factors.append([x for x in tensors if x.requires_grad][-2 if func.__name__ == "baddbmm" else 0 :])
        return func(*args, **kwargs)


def own_split(module, name):
    """Return the sets of rows of a projection that its attention uses for different things, and the first pair of factors."""
    output = []

    def detach(_module, _inputs, result):
        output[:] = [result.detach().clone().requires_grad_()]
        return output[0]

    errors = []
    for arguments in calls(module, name):
        handle = getattr(module, name).register_forward_hook(detach)
        products = Products()
        try:
            with products:
                module(**arguments)
        except Exception as err:  # the wrong arguments make a module raise anything
            errors.append(f"{type(err).__name__}: {err}"[:100])
            continue
        finally:
            handle.remove()
        used = [[rows for x in factors if (rows := reached(x, output[0]))] for factors in products.factors]
        used = [factors for factors in used if factors]
        if any(len(factors) > 1 for factors in used):
            by_use = defaultdict(set)
            for row in range(output[0].shape[-1]):
                by_use[tuple(row in rows for factors in used for rows in factors)].add(row)
            pair = next(factors for factors in used if len(factors) > 1)[:2]
            return {frozenset(rows) for rows in by_use.values()}, pair
    sizes = [getattr(module, key, 0) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")]
    if name in ("kv_b_proj", "q_gate_proj") and sizes[0] and sizes[2]:  # as the code of these modules splits each head
        first = sizes[0] if name == "kv_b_proj" else sizes[0] + sizes[1]
        heads = torch.arange(output_rows(module, name)).reshape(-1, first + sizes[2])
        return {frozenset(heads[:, :first].flatten().tolist()), frozenset(heads[:, first:].flatten().tolist())}, None
    return None, max(set(errors), key=errors.count, default="")


def output_rows(module, name):
    return getattr(module, name).weight.shape[0]


def reached(tensor, output):
    """Return the rows of the output on which a tensor depends."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(output.shape[-1], dtype=torch.bool)
    random = torch.randn(tensor.shape, generator=generator)
    (gradient,) = torch.autograd.grad((tensor * random).sum(), output, retain_graph=True, allow_unused=True)
    if gradient is not None:
        rows |= (gradient.flatten(0, -2) != 0).any(0)
    return set(rows.nonzero().flatten().tolist())


def calls(module, name):
    """Yield arguments for an attention of any class, by the names of its parameters."""
    layer, config = getattr(module, name), getattr(module, "config", None)
    width = layer.weight.shape[0 if hasattr(layer, "nf") else 1]
    width = config.hidden_size if name in ("kv_b_proj", "q_gate_proj") else width
    heads = next(
        (
            value
            for key in ("num_heads", "num_attention_heads", "n_heads")
            if isinstance(value := getattr(module, key, None), int)
        ),
        4,
    )
    size = next(
        (value for key in ("head_dim", "head_size") if isinstance(value := getattr(module, key, None), int)),
        width // heads,
    )
    turned = {
        getattr(module, "qk_rope_head_dim", None) or size,
        size,
        getattr(module, "rotary_ndims", size),
        size // 2,
        (getattr(module, "rotary_dim", None) or size) // 2,
    }
    shapes = [(1, 4, width), (4, width), (1, 4, 4, width), (1, 16, width), (1, 1, 16, width), (1, 64, width)]
    for shape, turn, lead, mask in itertools.product(
        shapes, sorted(turned, reverse=True), [(1,), (), (1, 1), None], range(3)
    ):
        tokens = 16 if len(shape) == 4 and shape[1] == 4 else shape[-2]
        angles = torch.rand(*(lead or ()), tokens, turn) + 0.5
        turns = torch.polar(torch.ones(1, tokens, turn // 2), torch.ones(1, tokens, turn // 2))
        masks = [torch.zeros(1, 1, tokens, tokens), torch.ones(1, tokens), torch.zeros(1, 1, tokens, tokens).bool()]
        known = {
            "position_embeddings": turns if lead is None else (angles, angles), "max_seqlen": tokens,
            "cu_seqlens": torch.tensor([0, tokens], dtype=torch.int32),
            "position_ids": torch.arange(tokens)[None], "alibi": torch.zeros(heads, 1, tokens),
            "position_bias": torch.zeros(heads, 1, tokens), "residual": torch.zeros(shape), "attention_mask": masks[mask],
            "attention_dists": torch.zeros(2 * [getattr(module, "context_size", 1)], dtype=torch.long),
        }  # fmt: skip
        arguments = {}
        for parameter in inspect.signature(module.forward).parameters.values():
            if parameter.name in ("hidden_states", "hidden_state", "x", "s"):
                arguments[parameter.name] = torch.randn(shape)
            elif parameter.name in ("encoder_hidden_states",) and getattr(module, "is_cross_attention", False):
                arguments[parameter.name] = torch.randn(shape)
            elif parameter.name in known:
                arguments[parameter.name] = known[parameter.name]
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                arguments[parameter.name] = None
        yield arguments


def build(folder, model_type, settings, wanted):
    """Return a configuration, and a model on the meta device with two layers that has one of the wanted classes."""
    config = transformers.AutoConfig.for_model(model_type, **settings)
    make_shallow(config)
    problem = None
    modelling = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    own = [
        x for x in vars(modelling).values() if isinstance(x, type) and getattr(x, "config_class", None) is type(config)
    ]
    with torch.device("meta"):
        for make in (transformers.AutoModel.from_config, *own, transformers.AutoModelForImageTextToText.from_config):
            try:
                model = make(config)
            except Exception as err:  # whatever a model of another kind stumbles over
                problem = problem or err
                continue
            if {type(module).__name__ for module in model.modules()} & wanted:
                return config, model
    raise problem or LookupError(f"no model of {model_type} has {', '.join(wanted)}")


def make_shallow(config, depth=0):
    """Give a configuration and its sections two layers, and attention in plain operations."""
    config._attn_implementation = "eager"
    for key, value in list(vars(config).items()):
        if isinstance(value, transformers.PretrainedConfig) and depth < 4:
            make_shallow(value, depth + 1)
        elif (LAYERS.fullmatch(key) and isinstance(value, int) and value > 2) or key == "layer_types":
            kinds = [*dict.fromkeys(value)] * 2 if key == "layer_types" and value else value
            try:
                setattr(config, key, kinds[:2] if isinstance(kinds, list) else 2)
            except (AttributeError, TypeError, ValueError):  # a property, or a setting that must be as deep as another
                pass


def with_values(module):
    """Move a module from the meta device and give it small values."""
    module.to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.uniform_(-0.1, 0.1) if tensor.is_floating_point() else tensor.zero_()
    return module


def split_by_htsr(listing, key):
    """Return the sets of rows that htsr makes of a weight whose entries are the numbers of their rows, and its notes."""
    layers = [
        x
        for x in split_into_layers(listing, Splitting("pool", per_head=False)).layers
        if f"{x.longname}.weight".replace("[", ".").startswith(f"{key.removesuffix('.weight')}.")
    ]
    return {
        x.name.partition("[")[2].rstrip("]"): frozenset(x.load().flatten(1)[:, 0].long().tolist()) for x in layers
    }, {x.note for x in layers}


def verdict(found, notes, truth, pair):
    """Say how a split of htsr compares with that of the module."""
    if len(found) < 2:
        return "whole, with a note" if any(notes) else "whole"
    if truth is None:
        return "WRONG or right: not probed"
    if set(found.values()) != truth:
        return "WRONG"
    straight = (
        pair is None
        or ("q" not in found)
        or {frozenset(x) for x in pair} != {found["q"], found["k"]}
        or frozenset(pair[0]) == found["q"]
    )
    return "as the module" if straight else "WRONG ORDER"


def compare(path, module, name, root, config, table):
    """Append the comparison for one projection of a model: from the module, and from names, shapes and config.json."""
    with_values(module)
    truth, pair = own_split(module, name)
    layer = getattr(module, name)
    turned = hasattr(layer, "nf")  # transformers' Conv1D stores (in, out)
    with torch.no_grad():
        numbers = torch.arange(layer.weight.shape[1 if turned else 0], dtype=torch.float32)
        layer.weight.copy_(numbers if turned else numbers[:, None])
    key = f"{path}.{name}.weight"
    states = root.state_dict()
    tensors = [StoredTensor(k, tuple(v.shape), "float32", partial(read, v)) for k, v in states.items()]
    saved = Listing("saved", tensors, config.to_dict())
    row = [type(module).__name__, key.removesuffix(".weight"), tuple(layer.weight.shape)]
    row += [verdict(*split_by_htsr(listing, key), truth, pair) for listing in (read_module(root), saved)]
    row.append(f"not probed: {pair}" if truth is None else f"{len(truth)} uses")
    table.append((config.model_type, *row))


def read(tensor, rows):
    return tensor if rows is None else tensor[rows]


def test_fused_projections_are_split_as_their_attention_splits_them(capsys):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name

    transformers.logging.set_verbosity(50)
    folders = defaultdict(list)
    for model_type in CONFIG_MAPPING_NAMES:
        folders[model_type_to_module_name(model_type)].append(model_type)
    table, missing = [], []
    only = os.environ.get("HTSR_ONLY", "").split()
    for folder, wanted in fused_projections().items():
        if only and folder not in only:
            continue
        met = set()
        alone = {cls for other, cls in ALONE if other == folder}
        for model_type in [] if alone else folders[folder]:
            for settings in VARIANTS.get(model_type, [{}] if wanted - met else []):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        config, root = build(folder, model_type, settings, {cls for cls, _ in wanted})
                    except Exception as err:  # another package is missing, or the defaults do not make a model
                        missing.append((model_type, f"{type(err).__name__}: {str(err)[:150]!r}"))
                        continue
                    seen = set()
                    for path, module in root.named_modules():
                        for cls, name in wanted:
                            kind = (cls, name, path.rpartition(".")[2])
                            if (
                                type(module).__name__ == cls
                                and hasattr(getattr(module, name, None), "weight")
                                and kind not in seen
                            ):
                                seen.add(kind)
                                met.add((cls, name))
                                compare(path, module, name, root, config, table)
        for cls, name in sorted(wanted - met):
            if (folder, cls) in ALONE:
                path, settings = ALONE[folder, cls]
                compare_alone(folder, cls, name, path, settings, table)
            else:
                missing.append((folder, f"{cls}.{name}: not built"))
    with capsys.disabled():
        print()
        for row in table:
            print("  ".join(map(str, row)))
        for row in missing:
            if (
                "Unrecognized configuration" not in row[1]
            ):  # a section of a configuration, which has no model of its own
                print(*row)
    wrong = [row for row in table if "WRONG" in f"{row[4]} {row[5]}"]
    assert not wrong
    if not only:
        assert sum(row[4] == row[5] == "as the module" for row in table) > 80


def compare_alone(folder, cls, name, path, settings, table):
    """Compare the projection of an attention that is built without the model around it."""
    modelling = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    config = transformers.AutoConfig.for_model(folder, **settings)
    config._attn_implementation = "eager"
    make = getattr(modelling, cls)
    module = make(config, **({"layer_idx": 0} if "layer_idx" in inspect.signature(make).parameters else {}))
    root = nn.Module()
    above = root
    *outer, last = path.split(".")
    for part in outer:
        above.add_module(part, nn.Module())
        above = getattr(above, part)
    above.add_module(last, module)
    root.config = config
    compare(path, module, name, root, config, table)
