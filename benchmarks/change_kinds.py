"""How often ``htsr.compare`` names the kind of a change: generated pairs of real networks against what was done to them.

Three networks are trained here, with three seeds each: a residual MLP and a residual CNN on scikit-learn's digits, and a GPT of
bytes on the sources of the standard library. A fourth, MiniLM, comes trained in a package. Fine-tunings, continued trainings,
trained heads and trained LoRAs are real: gradient descent made them. The other changes are computed from the weights.

    python benchmarks/change_kinds.py            # writes benchmarks/results/change_kinds.md
    python benchmarks/change_kinds.py --quick    # one small pair of each kind and network, writes nothing
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from provenance import RESULTS, provenance, table
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize, relu

import htsr
from htsr.comparison.kinds import KINDS
from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.demo.run import trained_transformer

Weights = dict[str, torch.Tensor]
PAIRS, PAIRS_OF_MINILM, SEEDS = 7, 3, 3


class ResidualMLP(nn.Module):
    """Digits to classes through a residual stream of 64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.up = nn.ModuleList(nn.Linear(64, 128) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(128, 64) for _ in range(3))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.first(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(relu(up(x)))
        return self.head(x)


class ResidualCNN(nn.Module):
    """Digits to classes through a residual stream of 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.first(x.unflatten(1, (1, 8, 8)))
        for block in self.blocks:
            x = x + block(relu(x))
        return self.head(relu(x).mean((2, 3)))


@dataclass
class Network:
    """A network, its task, and what its parts are for.

    Attributes:
        name: Name.
        make: Makes it with random weights.
        loss: Loss of a batch, drawn by a generator, of the task or of the one to fine-tune on.
        steps: Steps of a whole training.
        writes: Names of the matrices whose outputs are the residual stream.
        late: Names of the matrices that are trained if only few are.
    """

    name: str
    make: Callable[[], nn.Module]
    loss: Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Generator, bool], torch.Tensor]
    steps: int
    writes: tuple[str, ...]
    late: tuple[str, ...]


def networks() -> list[Network]:
    """Return the three networks that are trained here."""
    pixels, classes = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    pixels = (pixels.float() - 5) / 6
    text, other_text = (tokens(part) for part in standard_library())

    def of_digits(net: Callable[[torch.Tensor], torch.Tensor], draw: torch.Generator, shifted: bool) -> torch.Tensor:
        places = torch.randint(len(pixels), (64,), generator=draw)
        batch = pixels[places]
        if shifted:  # turned by 90 degrees
            batch = batch.unflatten(1, (8, 8)).mT.flip(1).flatten(1)
        return cross_entropy(net(batch), classes[places])

    def of_text(net: Callable[[torch.Tensor], torch.Tensor], draw: torch.Generator, shifted: bool) -> torch.Tensor:
        source = other_text if shifted else text
        places = torch.randint(len(source) - 33, (16, 1), generator=draw) + torch.arange(33)
        batch = source[places]
        if shifted:  # backwards
            batch = batch.flip(1)
        return cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    mlp_down = tuple(f"down.{block}.weight" for block in range(3))
    conv = tuple(f"blocks.{block}.weight" for block in range(4))
    gpt_writes = tuple(f"blocks.{block}.{part}.weight" for block in range(2) for part in ("output", "down"))
    return [
        Network("MLP", ResidualMLP, of_digits, 600, mlp_down, ("head.weight", "down.2.weight")),
        Network("CNN", ResidualCNN, of_digits, 300, conv, ("head.weight",)),
        Network("GPT", lambda: GPT(32, 64, 2, 4), of_text, 400, gpt_writes, ("head.weight", "blocks.1.down.weight")),
    ]


def train(
    net: nn.Module, of: Network, steps: int, lr: float, seed: int, *, shifted: bool = False, only: tuple[str, ...] = ()
) -> None:
    """Train a network with AdamW, on its task or a shifted one, all of it or a few matrices only."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not only or name in only)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        of.loss(net, draw, shifted).backward()
        optimizer.step()


def trained_lora(weights: Weights, of: Network, names: list[str], rank: int, steps: int, seed: int) -> Weights:
    """Return the weights with LoRAs of these matrices, trained on the shifted task, merged into them."""
    torch.manual_seed(seed)
    net, draw = of.make(), torch.Generator().manual_seed(seed)
    factors = {
        name: (torch.zeros(len(W), rank).requires_grad_(), (torch.randn(rank, W[0].numel()) / rank).requires_grad_())
        for name in names
        for W in [weights[name]]
    }
    optimizer = torch.optim.AdamW([factor for pair in factors.values() for factor in pair], lr=3e-3)

    def merged() -> Weights:
        return weights | {
            name: weights[name] + (out @ into).reshape(weights[name].shape) for name, (out, into) in factors.items()
        }

    for _ in range(steps):
        optimizer.zero_grad()
        state = merged()
        of.loss(lambda x, state=state: functional_call(net, state, (x,)), draw, True).backward()
        optimizer.step()
    return {name: W.detach() for name, W in merged().items()}


class Trained:
    """One network after its training, with what was kept on the way and what came after."""

    def __init__(self, of: Network, seed: int, quick: bool) -> None:
        torch.manual_seed(seed)
        net, steps = of.make(), of.steps // (4 if quick else 1)
        self.early: list[Weights] = []
        for part in range(4):  # kept after 1/16, 1/8 and 1/4
            train(net, of, (steps >> (4 - part)) if part == 0 else (steps >> (5 - part)), 2e-3, 10 * seed + part)
            if part < 3:
                self.early.append(_copy(net))
        train(net, of, steps - steps // 2, 1e-3, 10 * seed + 7)
        self.weights = _copy(net)
        self.tuned: list[Weights] = []
        self.late: list[Weights] = []
        for number, (share, lr) in enumerate(((16, 5e-5), (8, 1e-4), (4, 2e-4))):
            for kept, only in ((self.tuned, ()), (self.late, of.late[: 1 + number % 2])):
                net.load_state_dict(self.weights)
                train(net, of, max(steps // share, 4), lr, 100 + number, shifted=True, only=only)
                kept.append(_copy(net))


def _copy(net: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


@dataclass
class Pair:
    """Two models, the kind of the change from one to the other, and another parent where that is needed."""

    kind: str
    network: str
    what: str
    a: Weights
    b: Weights
    other: Weights | None = None


def each(weights: Weights, change: Callable[[torch.Tensor], torch.Tensor], names: list[str] | None = None) -> Weights:
    """Return the weights with some matrices, or all, changed as matrices of shape ``(out, rest)``."""
    return {
        name: change(W.flatten(1)).reshape(W.shape) if W.ndim > 1 and (names is None or name in names) else W
        for name, W in weights.items()
    }


def stored(weights: Weights, dtype: torch.dtype) -> Weights:
    return {name: W.to(dtype) if W.is_floating_point() else W for name, W in weights.items()}


NF4 = torch.tensor(
    [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1]
)  # fmt: skip


def quantised(W: torch.Tensor, scheme: str, group: int) -> torch.Tensor:
    """Return a matrix after quantisation and back; ``group`` values in a row share a scale, all of a row if it is 0."""
    size = group if group and W.shape[1] % group == 0 else W.shape[1]
    blocks = W.reshape(-1, size)
    largest = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    if scheme == "nf4":
        levels = blocks / largest
        return (NF4[(levels[..., None] - NF4).abs().argmin(-1)] * largest).reshape(W.shape)
    if scheme == "fp8":
        return ((blocks / largest * 448).to(torch.float8_e4m3fn).float() * largest / 448).reshape(W.shape)
    most = 2 ** (int(scheme[3:]) - 1) - 1
    if scheme == "int4":  # with a zero point
        low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
        step = (high - low).clamp_min(1e-12) / 15
        return (((blocks - low) / step).round() * step + low).reshape(W.shape)
    return ((blocks / largest * most).round() * largest / most).reshape(W.shape)


def prune(W: torch.Tensor, share: float) -> torch.Tensor:
    """Return a matrix whose smallest values are zero."""
    return W * (W.abs() > W.abs().flatten().sort().values[int(share * W.numel())])


def pruned(W: torch.Tensor, how: str, share: float, draw: random.Random) -> torch.Tensor:
    """Return a matrix that was pruned in one of three ways."""
    if how == "2:4":
        if W.shape[1] % 4:
            return W
        blocks = W.reshape(-1, 4)
        return (blocks * (blocks.abs() >= blocks.abs().sort(1).values[:, 2:3])).reshape(W.shape)
    if how == "rows":
        gone = draw.sample(range(len(W)), max(1, int(share * len(W))))
        return W.index_fill(0, torch.tensor(gone), 0)
    return prune(W, share)


def add_low_rank(W: torch.Tensor, rank: int, size: float) -> torch.Tensor:
    """Return a matrix plus one of low rank, of a size relative to the matrix."""
    update = torch.randn(len(W), rank) @ torch.randn(rank, W.shape[1])
    return W + size * W.norm() / update.norm() * update


def remove_direction(W: torch.Tensor, direction: torch.Tensor, share: float) -> torch.Tensor:
    """Return a matrix without a share of a direction of its outputs."""
    return W - share * torch.outer(direction, direction @ W)


def planted(name: str, weights: Weights, writes: tuple[str, ...], count: int, seed: int) -> Iterator[Pair]:
    """Yield pairs whose changes are computed from the weights."""
    draw = random.Random(seed)
    matrices = [key for key, W in weights.items() if W.ndim > 1]
    wide = [key for key in matrices if min(weights[key].flatten(1).shape) >= 16]
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for number in range(count):
        dtype = list(types)[number % 3]
        base = stored(weights, types[dtype])

        def pair(kind: str, what: str, changed: Weights, a: Weights = base, dtype: str = dtype) -> Pair:
            return Pair(kind, name, f"{what}, {dtype}", a, stored(changed, types[dtype]))

        exact = stored(base, torch.float32)
        copy = ("copied", "float64", "copied")[number % 3]
        yield Pair("identical", name, copy, base, stored(base, torch.float64) if copy == "float64" else base)

        narrow = (torch.bfloat16, torch.float16, torch.float8_e4m3fn)[draw.randrange(3)]
        some = draw.sample(matrices, max(1, len(matrices) // 2)) if number % 2 else matrices
        rounded = weights | {key: weights[key].to(narrow) for key in some}
        if number % 4 == 3 and narrow != torch.float8_e4m3fn:
            rounded = stored(rounded, torch.float32)
        ends = (rounded, weights) if number % 3 == 2 else (weights, rounded)
        yield Pair("rounded", name, f"{narrow}, {len(some)} matrices", *ends)

        scheme, group = draw.choice(["int8", "int8", "int4", "nf4", "fp8"]), draw.choice([0, 32, 64])
        some = wide if number % 2 else matrices
        on_grid = each(exact, lambda W, s=scheme, g=group: quantised(W, s, g), some)
        yield pair("quantised", f"{scheme} by {group or 'row'}", on_grid)

        rank, size = draw.choice([1, 2, 4, 8]), draw.choice([0.02, 0.05, 0.2])
        some = draw.sample(wide, draw.randint(1, len(wide)))

        merged = each(exact, lambda W, r=rank, s=size: add_low_rank(W, r, s), some)
        yield pair("merged-lora", f"rank {rank} of size {size} on {len(some)}", merged)

        side = len(exact[writes[0]])
        direction = normalize(torch.randn(side), dim=0)
        share = draw.choice([1.0, 1.0, 0.5])
        from_ = list(writes) if number % 2 else draw.sample(list(writes), max(2, len(writes) // 2))
        gone = each(exact, lambda W, d=direction, s=share: remove_direction(W, d, s), from_)
        yield pair("direction-removed", f"{share} from {len(from_)}", gone)

        how, amount = draw.choice(["size", "size", "rows", "2:4"]), draw.choice([0.1, 0.5, 0.9])
        some = wide if number % 2 else matrices
        zeroed = each(exact, lambda W, h=how, s=amount: pruned(W, h, s, draw), some)
        yield pair("pruned", f"{how} {amount}", zeroed)

        yield from controls(name, number, base, exact, types[dtype])


def controls(name: str, number: int, base: Weights, exact: Weights, dtype: torch.dtype) -> Iterator[Pair]:
    """Yield pairs of no kind, of which nothing must be claimed."""
    changes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "noise": lambda W: W + 0.05 * W.std() * torch.randn_like(W),
        "scaled": lambda W: 1.5 * W,
        "signs of rows flipped": lambda W: W * torch.randn(len(W), 1).sign(),
        "rows and columns in another order": lambda W: W[torch.randperm(len(W))][:, torch.randperm(W.shape[1])],
    }
    for what in list(changes)[number % 2 :: 2]:
        yield Pair("undecided", name, what, base, stored(each(exact, changes[what]), dtype))


def trained_pairs(of: Network, quick: bool, first: int) -> Iterator[Pair]:
    """Yield pairs whose changes gradient descent made, and mixtures of such pairs."""
    seeds = [Trained(of, first + seed, quick) for seed in range(2 if quick else SEEDS)]
    types = (torch.float32, torch.bfloat16, torch.float16)
    for number in range(1 if quick else PAIRS):
        one, place = seeds[number % len(seeds)], number // len(seeds) % 3
        dtype = types[number % 2 * (1 + number % 3 // 2)]

        def pair(
            kind: str, what: str, a: Weights, b: Weights, c: Weights | None = None, dtype: torch.dtype = dtype
        ) -> Pair:
            return Pair(kind, of.name, f"{what}, {dtype}", *(stored(W, dtype) for W in (a, b)), c and stored(c, dtype))

        yield pair("fine-tuned", f"way {place}", one.weights, one.tuned[place])
        yield pair("trained-on", f"from 1/{16 >> place}", one.early[place], one.weights)
        yield pair("few-layers", f"way {place}", one.weights, one.late[place])
        yield pair("unrelated", "two seeds", one.weights, seeds[(number + 1) % len(seeds)].weights)
        t = random.Random(first + number).uniform(0.1, 0.9)
        other = one.tuned[place] if number % 2 else one.early[place]
        mixed = {name: torch.lerp(W, other[name], t) for name, W in one.weights.items()}
        yield pair("interpolated", f"t = {t:.2f}", one.weights, mixed, other)
        wide = [name for name, W in one.weights.items() if W.ndim > 1 and min(W.flatten(1).shape) >= 16]
        lora = trained_lora(one.weights, of, wide[number % 2 :: 2], 2 + 2 * place, 10 if quick else 60, first + number)
        yield pair("merged-lora", f"trained, rank {2 + 2 * place}", one.weights, lora)
    yield from planted(of.name, seeds[0].weights, of.writes, 1 if quick else PAIRS, first + 5)


def minilm_pairs(first: int) -> Iterator[Pair]:
    weights = {name: W for name, W in load_file(trained_transformer()).items() if W.is_floating_point()}
    writes = tuple(name for name in weights if name.endswith("output.dense.weight"))
    return planted("MiniLM", weights, writes, PAIRS_OF_MINILM, first + 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small pair of each kind and network; write nothing")
    parser.add_argument("--seed", type=int, default=2, help="the thresholds were chosen on the pairs of seeds 0 and 1")
    options = parser.parse_args()
    quick, seed = options.quick, 1000 * options.seed
    torch.manual_seed(seed)
    start = time.perf_counter()
    found: dict[str, Counter[str]] = defaultdict(Counter)
    by_network: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    missed = []
    sources = [trained_pairs(of, quick, seed) for of in networks()] + ([] if quick else [minilm_pairs(seed)])
    for source in sources:
        for pair in source:
            c = htsr.compare(pair.a, pair.b, other_parent=pair.other, bulk=False, progress=False)
            found[pair.kind][c.kind] += 1
            outcome = 0 if c.kind == pair.kind else 1 if c.kind == "undecided" else 2
            by_network[pair.network][outcome] += 1
            if outcome:
                missed.append([pair.network, pair.kind, pair.what, c.kind, c.kind_evidence])
                print(*missed[-1], sep=" | ", flush=True)
    kinds = [kind for kind in KINDS if kind in found]
    shown = [kind for kind in KINDS if any(counts[kind] for counts in found.values())]
    rows = [[kind, *(found[kind][other] or "" for other in shown), sum(found[kind].values())] for kind in kinds]
    right = sum(found[kind][kind] for kind in kinds)
    claimed = [kind for kind in kinds if kind != "undecided"]
    total = sum(sum(found[kind].values()) for kind in kinds)
    wrong = sum(count for kind in kinds for other, count in found[kind].items() if other not in (kind, "undecided"))
    named = sum(found[kind][kind] for kind in claimed) / sum(sum(found[kind].values()) for kind in claimed)
    lines = [
        "# What kind of change is this?",
        "",
        "Pairs of networks and what was done to them (rows), and what `htsr.compare` says (columns). `undecided` pairs are "
        "changes of none of the kinds: noise, another scale, flipped signs, units in another order. The thresholds were chosen "
        "on the pairs of other seeds.",
        "",
        *table(["done \\ said", *shown, "pairs"], rows),
        "",
        f"{right} of {total} pairs right ({right / total:.1%}), {total - right - wrong} undecided, {wrong} wrong. Of the pairs "
        f"of a kind, {named:.1%} are named.",
        "",
        *table(["network", "right", "undecided", "wrong"], [[name, *counts] for name, counts in by_network.items()]),
        "",
        "Not named as what they are:",
        "",
        *table(["network", "done", "how", "said", "evidence"], missed),
        "",
        f"{time.perf_counter() - start:.0f} s in all. {provenance()}",
        "",
    ]
    print("\n".join(lines))
    if not quick:
        (RESULTS / "change_kinds.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
