"""The kind of a change, on small networks whose changes are planted."""

import math

import pytest
import torch

import htsr
from htsr.comparison.kinds import KINDS

Weights = dict[str, torch.Tensor]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed=0) -> Weights:
    """Embedding, two blocks, a convolution, a head: matrices with a bulk and some strong directions, rows of unequal size."""
    shapes = {"embedding": (150, 48), "conv": (24, 16, 3, 3)}
    for block in ("0", "1"):
        shapes |= {
            f"{block}.qkv": (48, 48),
            f"{block}.out": (48, 48),
            f"{block}.up": (96, 48),
            f"{block}.down": (48, 96),
        }
    shapes["head"] = (10, 48)
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        rows, columns = shape[0], math.prod(shape[1:])
        at = 100 * seed + number
        strong = normal(rows, 4, seed=at + 17) @ normal(4, columns, seed=at + 29)
        W = (normal(rows, columns, seed=at) + strong) * (0.5 + normal(rows, 1, seed=at + 41).abs()) * 0.05
        made[name] = W.reshape(shape)
    return made


def changed(weights: Weights, change, names=None) -> Weights:
    """The weights with ``change(W, number)`` in place of those named, which all are by default."""
    return {
        name: change(W.flatten(1), number).reshape(W.shape) if names is None or name in names else W.clone()
        for number, (name, W) in enumerate(weights.items())
    }


def add_low_rank(rank, size=0.3):
    def change(W, number):
        r = rank if isinstance(rank, int) else rank[number % len(rank)]
        return W + size / math.sqrt(r) * W.std() * normal(len(W), r, seed=number + 1) @ normal(
            r, W.shape[1], seed=number + 2
        )

    return change


def train(size):
    """A change with a strong direction, as gradients have, and a bulk; of this relative size."""

    def change(W, number):
        G = normal(*W.shape, seed=number + 5) + normal(len(W), 1, seed=number) @ normal(1, W.shape[1], seed=number + 9)
        return W + size * W.norm() / G.norm() * G

    return change


def quantise(bits, group=None, axis=1):
    def change(W, _):
        blocks = (W if axis == 1 else W.mT).unfold(1, group, group) if group and W.shape[1] % group == 0 else W[:, None]
        step = blocks.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        return ((blocks / step).round() * step).reshape(W.shape)

    return change


def prune(share):
    return lambda W, _: W * (W.abs() > W.abs().flatten().quantile(share))


def prune_2_of_4(W, _):
    blocks = W.unfold(1, 4, 4)
    return (blocks * (blocks.abs() >= blocks.abs().sort(-1).values[..., 2:3])).reshape(W.shape)


def remove_rows(W, _):
    kept = torch.ones(len(W), 1)
    kept[3:7] = 0
    return W * kept


def project_out(share=1.0, count=1):
    U = torch.linalg.qr(normal(48, count, seed=3)).Q

    def change(W, _):
        if W.shape[0] == 48:
            return W - share * U @ (U.mT @ W)
        return W - share * (W @ U) @ U.mT

    return change


def swap_rows(W, _):
    order = torch.arange(len(W))
    order[[2, 5]] = order[[5, 2]]
    return W[order]


def truncate(rank):
    def change(W, _):
        U, S, V = torch.linalg.svd(W, full_matrices=False)
        return U[:, :rank] * S[:rank] @ V[:rank]

    return change


def reset(count, axis=0):
    def change(W, number):
        other = W.clone()
        rows = other if axis == 0 else other.mT
        rows[:count] = W.std() * normal(*rows[:count].shape, seed=number + 60)
        return other

    return change


def cast(dtype):
    return lambda W, _: W.to(dtype)


WRITES = ("0.out", "0.down", "1.out", "1.down")
READS = ("embedding", "0.qkv", "0.up")
BLOCK = ("1.qkv", "1.out", "1.up", "1.down")

# What is done to the network, to which of its matrices (None: all), and the kind that this is.
CASES = {
    "copy": (lambda W, _: W.clone(), None, "identical"),
    "float64": (cast(torch.float64), None, "identical"),
    "bfloat16": (cast(torch.bfloat16), None, "rounded"),
    "float16": (cast(torch.float16), None, "rounded"),
    "bfloat16 as float32": (lambda W, _: W.bfloat16().float(), None, "rounded"),
    "float8": (lambda W, _: W.to(torch.float8_e4m3fn), None, "rounded"),
    "half in half": (cast(torch.float16), BLOCK, "rounded"),
    "int8 by row": (quantise(8), None, "quantised"),
    "int8 by group": (quantise(8, 16), None, "quantised"),
    "int4 by row": (quantise(4), None, "quantised"),
    "int4 by group": (quantise(4, 16), None, "quantised"),
    "int4 in bfloat16": (lambda W, n: quantise(4, 16)(W, n).bfloat16(), None, "quantised"),
    "2 bits": (quantise(2), None, "quantised"),
    "int8 of some": (quantise(8), BLOCK, "quantised"),
    "LoRA": (add_low_rank(4), None, "merged-lora"),
    "LoRA by layer": (add_low_rank([1, 2, 6, 4]), ("0.qkv", "0.up", "1.qkv", "1.up", "conv"), "merged-lora"),
    "LoRA of one": (add_low_rank(2), ("0.qkv",), "merged-lora"),
    "small LoRA": (add_low_rank(4, 0.03), BLOCK, "merged-lora"),
    "direction": (project_out(), WRITES, "direction-removed"),
    "direction of the inputs": (project_out(), READS, "direction-removed"),
    "direction of both": (project_out(), WRITES + READS, "direction-removed"),
    "half of a direction": (project_out(0.5), WRITES, "direction-removed"),
    "three directions": (project_out(count=3), WRITES, "direction-removed"),
    "direction of one": (project_out(), WRITES[:1], "few-layers"),
    "magnitude": (prune(0.5), None, "pruned"),
    "a tenth": (prune(0.1), BLOCK, "pruned"),
    "2 of 4": (prune_2_of_4, None, "pruned"),
    "rows": (remove_rows, None, "pruned"),
    "pruned in half": (lambda W, n: prune(0.4)(W, n).half(), None, "pruned"),
    "head": (train(0.3), ("head",), "few-layers"),
    "block": (train(0.1), BLOCK, "few-layers"),
    "new head": (lambda W, _: 0.05 * normal(*W.shape, seed=77), ("head",), "few-layers"),
    "small steps": (train(0.02), None, "fine-tuned"),
    "larger steps": (train(0.1), None, "fine-tuned"),
    "more training": (train(0.6), None, "trained-on"),
    "much more training": (train(1.2), None, "trained-on"),
    "noise": (lambda W, n: W + 0.05 * W.std() * normal(*W.shape, seed=n + 50), None, "undecided"),
    "scaled": (lambda W, _: 1.7 * W, None, "undecided"),
    "decayed": (lambda W, _: 0.99 * W, None, "undecided"),
    "flipped": (lambda W, _: -W, None, "undecided"),
    "rows scaled": (lambda W, n: W * (1 + 0.2 * normal(len(W), 1, seed=n)), None, "undecided"),
    "columns flipped": (lambda W, n: W * normal(1, W.shape[1], seed=n).sign(), None, "undecided"),
    "rows in another order": (lambda W, n: W[normal(len(W), seed=n).argsort()], None, "undecided"),
    "rows of one reversed": (lambda W, _: W.flip(0), ("1.out",), "undecided"),
    "columns of some reversed": (lambda W, _: W.flip(1), BLOCK, "undecided"),
    "two rows swapped": (swap_rows, None, "undecided"),
    "truncated to half": (truncate(24), BLOCK, "undecided"),
    "truncated by a few": (truncate(44), BLOCK, "undecided"),
    "some rows reset": (reset(4), None, "undecided"),
    "some columns reset": (reset(4, axis=1), BLOCK, "few-layers"),
    "rows of one edited": (reset(8), ("embedding",), "few-layers"),
    "in between": (train(0.25), None, "undecided"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_kind_of_a_planted_change(case):
    change, names, kind = CASES[case]
    base = network()
    c = htsr.compare(base, changed(base, change, names), bulk=False, rank=4)
    assert c.kind == kind, c.kind_evidence
    assert c.kind in KINDS
    assert c.kind_evidence.endswith(".")


HALF = ("int8 by row", "int4 by group", "LoRA by layer", "direction of both", "half of a direction", "2 of 4", "block", "noise",
        "larger steps", "more training")  # fmt: skip


@pytest.mark.parametrize("case", HALF)
def test_the_kind_in_half_precision(case):
    """Where both networks are stored in 16 bits, a change that is larger than the rounding is of the same kind."""
    change, names, kind = CASES[case]
    base = {name: W.bfloat16() for name, W in network().items()}
    other = changed({name: W.float() for name, W in base.items()}, change, names)
    c = htsr.compare(base, {name: W.bfloat16() for name, W in other.items()}, bulk=False, rank=4)
    assert c.kind == kind, c.kind_evidence


def test_two_networks_are_unrelated():
    a, b = network(), network(seed=1)
    c = htsr.compare(a, b, bulk=False, rank=4)
    assert c.kind == "unrelated", c.kind_evidence
    common = 0.2 * normal(1, 48)  # as of tokens that never occur
    c = htsr.compare(a | {"embedding": a["embedding"] + common}, b | {"embedding": b["embedding"] - common}, bulk=False)
    assert abs(c["embedding"].signature.difference.correlation) > 0.2
    assert c.kind == "unrelated", c.kind_evidence


def test_half_of_the_matrices_replaced_is_undecided():
    a, b = network(), network(seed=1)
    c = htsr.compare(a, changed(a, train(0.05)) | {name: b[name] for name in WRITES + READS[1:]}, bulk=False, rank=4)
    assert c.kind == "undecided", c.kind_evidence


@pytest.mark.parametrize(
    ("dtype", "share", "kind"),
    [
        (torch.float32, 0.5, "interpolated"),
        (torch.bfloat16, 0.5, "interpolated"),
        (torch.float16, 0.2, "interpolated"),
        (torch.float32, [0.1, 0.4, 0.9], "interpolated"),
        (torch.float32, 1.4, "fine-tuned"),  # beyond the other parent
        (torch.float32, 1.0, "fine-tuned"),  # the other parent itself
    ],
)
def test_a_mixture_of_two_parents(dtype, share, kind):
    a = network()
    c = changed(a, train(0.1), BLOCK + WRITES + READS)
    shares = share if isinstance(share, list) else [share]
    mixed = {
        name: torch.lerp(a[name], c[name], shares[number % len(shares)]).to(dtype) for number, name in enumerate(a)
    }
    found = htsr.compare(a, mixed, other_parent=c, bulk=False, rank=4)
    assert found.kind == kind, found.kind_evidence
    if kind == "interpolated":
        assert all(f"{t:.3g}" in found.kind_evidence for t in (min(shares), max(shares)))
    if dtype == torch.float32 and kind == "interpolated":
        assert htsr.compare(a, mixed, bulk=False, rank=4).kind == "fine-tuned"  # nobody knows of the other parent


def test_the_numbers_stand_in_the_evidence():
    base = network()

    def evidence(case):
        return htsr.compare(base, changed(base, *CASES[case][:2]), bulk=False, rank=4).kind_evidence

    assert "5 of 11 matrices changed by exactly ranks from 1 to 6 (conv" in evidence("LoRA by layer")
    assert "4 of 11 matrices lost the same direction of their outputs, by 50 %" in evidence("half of a direction")
    assert "2 of every 4 values" in evidence("2 of 4")
    assert "whole rows" in evidence("rows")
    assert "rounding to bfloat16" in evidence("bfloat16")
    assert "a factor for each column: -1 to 1" in evidence("columns flipped")


@pytest.mark.parametrize(
    ("case", "change", "said"),
    [
        ("rows of one reversed", "reordered", "1 of 11 matrices has the rows or columns of A in another order"),
        ("two rows swapped", "reordered", "conv 2 of 24 rows"),
        (
            "truncated to half",
            "truncated",
            "In 4 of 11 matrices, B is A with its small singular values removed: of rank 48, 24",
        ),
        ("some rows reset", "partial", "0.qkv 4 of 48 rows"),
        ("rows of one edited", "partial", "(embedding, 8 of 150 rows)"),
        ("direction of one", "direction-removed", "only 0.out lost a direction of its outputs, by 100 %; 10 are equal"),
    ],
)
def test_row_and_evidence_name_the_same(case, change, said):
    base = network()
    c = htsr.compare(base, changed(base, *CASES[case][:2]), bulk=False, rank=4)
    assert said in c.kind_evidence
    for layer in c:
        if layer.row["status"] == "changed":
            assert layer.row["change"] == change
            assert layer.row["change_evidence"].rstrip(".") in layer.row["reason"]


@pytest.mark.parametrize("shape", [(384, 2), (2, 384)])
def test_random_matrices_are_replaced_and_not_reordered(shape):
    """Of a matrix with few rows or columns, all directions are leading ones."""
    c = htsr.compare({"w": normal(*shape)}, {"w": normal(*shape, seed=1)})
    assert c["w"].row["change"] == "replaced"
    assert "noise" not in c["w"].row["reason"]


def test_permutations_of_any_kind_are_no_low_rank():
    W = normal(48, 40)
    for moved in (2, 3, 17, 24, 32, 48):
        order = torch.cat((torch.arange(moved).roll(1), torch.arange(moved, 48)))
        row = htsr.compare({"w": W}, {"w": W[order]}, bulk=False)["w"].row
        assert (row["change"], row["change_evidence"].split(": ")[1]) == ("reordered", f"{moved} of 48 rows moved.")


def test_factors_near_one_are_told_from_it():
    base = network()
    assert (
        "one factor: 1.0001;"
        in htsr.compare(base, base | {n: 1.0001 * base[n] for n in READS}, bulk=False).kind_evidence
    )


def test_tied_and_failed_layers_do_not_decide():
    base = network()
    tuned = changed(base, add_low_rank(3), ("0.qkv",))
    for weights in (base, tuned):
        weights["tied"] = weights["0.qkv"]
    tuned["head"] = torch.full((10, 48), math.nan)
    c = htsr.compare(base, tuned, bulk=False, rank=4)
    assert c.kind == "merged-lora"
    assert "1 of 10 matrices" in c.kind_evidence
    assert htsr.compare({"w": base["head"]}, {"w": tuned["head"]}).kind == "undecided"
