import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import htsr


def family(width, depth, powers):
    """A decoder whose weights have RMS operator norms that go with given powers of the width."""
    draw = torch.Generator().manual_seed(width)

    def weight(n_out, n_in, power):
        W = torch.linalg.qr(torch.randn(max(n_out, n_in), min(n_out, n_in), generator=draw))[0]
        W = W if n_out >= n_in else W.T
        return (W * math.sqrt(n_out / n_in) * width**power).contiguous()

    weights = {"embed_tokens.weight": torch.randn(50, width, generator=draw)}
    for block in range(depth):
        at = f"layers.{block}"
        weights[f"{at}.attn.q_proj.weight"] = weight(width, width, powers["q"])
        weights[f"{at}.mlp.up_proj.weight"] = weight(4 * width, width, powers["up"])
        weights[f"{at}.mlp.down_proj.weight"] = weight(width, 4 * width, powers["down"])
    weights["lm_head.weight"] = weight(50, width, 0)
    return weights


POWERS = {"q": 0.0, "up": 0.5, "down": -0.5}


def test_exponents_of_a_family_are_those_it_was_made_with(tmp_path):
    """Also where the larger model is deeper: layers match by their relative depth."""
    for width, depth in ((16, 2), (32, 4), (64, 4)):
        save_file(family(width, depth, POWERS), tmp_path / f"{width}.safetensors")
    audit = htsr.width_audit([tmp_path / f"{width}.safetensors" for width in (16, 32, 64)])
    rows = audit.details.set_index("role")
    assert rows.loc["attn.q_proj", ["grows", "layers", "verdict"]].tolist() == ["both", 10, "flat"]
    assert rows.loc["mlp.up_proj", "exponent"] == pytest.approx(0.5, abs=1e-4)
    assert rows.loc["mlp.up_proj", "verdict"] == "grows as width^0.5"
    assert rows.loc["mlp.down_proj", ["width_narrowest", "width_widest"]].tolist() == [64, 256]
    assert rows.loc["mlp.down_proj", "verdict"] == "vanishes as width^-0.5"
    assert rows.loc["lm_head", "grows"] == "in"
    assert (rows["error"] < 0.1).all()
    of = audit.measurements
    assert set(of.loc[of["source"] == "64.safetensors", "depth"]) == {-1, 0, 1}
    assert "mlp.down_proj vanishes as width^-0.5; mlp.up_proj grows as width^0.5." in repr(audit)
    (panel,) = audit.plot().axes
    labels = [line.get_label() for line in panel.lines if not line.get_label().startswith("_")]
    assert labels == ["mlp.down_proj (both)", "mlp.up_proj (both)"]


def test_the_norm_is_that_of_a_dense_reference():
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, n, 3), nn.Embedding(9, n)) for n in (8, 16)]
    audit = htsr.width_audit(models)
    for number, model in enumerate(models):
        of = audit.measurements[audit.measurements["source"] == str(number)].set_index("name")["rms_operator_norm"]
        kernel = model[0].weight.detach().double().numpy().reshape(len(model[0].weight), 27)
        rows = model[1].weight.detach().double().numpy()
        assert of["0"] == pytest.approx(np.linalg.norm(kernel, 2) * math.sqrt(27 / len(kernel)))
        assert of["1"] == pytest.approx(np.sqrt((rows**2).mean(1)).max())
    assert audit.details["verdict"].tolist() == ["not told apart from flat"] * 2  # two values have no error


def test_what_only_one_model_has_is_listed():
    small, large = family(16, 2, POWERS), family(32, 2, POWERS)
    large["layers.0.extra.weight"] = torch.randn(8, 8)
    small["fixed.weight"] = large["fixed.weight"] = torch.randn(8, 8)
    audit = htsr.width_audit([small, large], skip="embed_tokens")
    assert audit.skipped.to_numpy().tolist() == [
        ["fixed", "of one shape in all sources"],
        ["extra", "in one source only"],
    ]


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        ("a.pt", TypeError, "expected a list of sources"),
        ([{"w": torch.ones(2, 3)}], ValueError, "at least two sources"),
        ([{"w": torch.ones(2, 3)}] * 2, htsr.InputError, "w: of one shape in all sources"),
    ],
)
def test_what_is_no_family_is_refused(sources, error, message):
    with pytest.raises(error, match=message):
        htsr.width_audit(sources)
