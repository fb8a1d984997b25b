"""Small networks for surveys, and the ways in which people store them."""

import numpy as np
import torch
from safetensors.torch import save_file

SHAPES = {"in_proj": (48, 30), "mixer.up": (70, 48), "mixer.down": (48, 70), "square": (48, 48), "head": (11, 48)}


def network(seed=0, shapes=SHAPES, scale=0.1):
    """A state dict with a bias for each matrix."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = scale * torch.randn(*shape, generator=draw)
        tensors[f"{name}.bias"] = scale * torch.randn(shape[0], generator=draw)
    return tensors


def changed(tensors, by, seed=1, only=""):
    """The same network after a change of each matrix by noise of this relative size."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: tensor + by * tensor.std() * torch.randn(tensor.shape, generator=draw) if only in name else tensor
        for name, tensor in tensors.items()
    }


def int8(tensors):
    """The same network with integer matrices and one scale a row, as several libraries store it."""
    stored = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            stored[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True) / 127
        stored[name.replace(".weight", ".qweight")] = (tensor / scale).round().to(torch.int8)
        stored[name.replace(".weight", ".scale")] = scale
    return stored


def renamed(tensors, seed=2):
    """The same tensors under other names, in another order."""
    order = np.random.default_rng(seed).permutation(len(tensors))
    items = list(tensors.items())
    return {f"blob_{place}": items[place][1] for place in order}


def save(path, tensors):
    """Write a state dict in the format of the suffix and return the path."""
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save(tensors, path)
    return path


def save_onnx(path, tensors):
    """Write a chain of products with these matrices, stored as (in, out) under names of the exporter's own."""
    import onnx
    from onnx import helper, numpy_helper

    nodes, constants = [], []
    for number, (name, tensor) in enumerate(tensors.items()):
        if tensor.ndim == 2:
            constants.append(numpy_helper.from_array(tensor.mT.contiguous().numpy(), f"onnx::MatMul_{number}"))
            nodes.append(helper.make_node("MatMul", [f"x{name}", f"onnx::MatMul_{number}"], [f"y{name}"]))
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
              for node in nodes for name in (node.input[0], node.output[0])]  # fmt: skip
    graph = helper.make_graph(nodes, "net", values[::2], values[1::2], constants)
    onnx.save(helper.make_model(graph), path)
    return path
