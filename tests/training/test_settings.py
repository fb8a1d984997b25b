"""The settings of a run: run.json, tables, labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.labels import labels, settings_text
from htsr.optim import CosinePower, HTMuon, parameter_groups
from htsr.training.live import screen
from htsr.training.settings import TORCH_DEFAULT_SEED, settings_of

SGD = torch.optim.SGD


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def run(directory, optimizer_of=lambda model: SGD(model.parameters(), lr=0.1), **options):
    model = net()
    monitor = htsr.Monitor(model, optimizer_of(model), run_dir=directory, bootstrap=0, bulk=False, **options)
    monitor.close()
    return monitor


def test_the_seed_of_torch_stands_there_only_if_somebody_set_it():
    torch.default_generator.manual_seed(TORCH_DEFAULT_SEED)
    assert "seed" not in settings_of([], None)
    torch.manual_seed(7)
    assert settings_of([], None) == {"seed": 7}
    assert settings_of([], {"seed": 3}) == {"seed": 3}


def test_each_kind_of_group_tells_its_own_settings():
    torch.manual_seed(0)
    model = net()
    optimizer = HTMuon(parameter_groups(model, power=0.25), lr=0.03)
    assert settings_of([optimizer], None) == {
        "lr": 0.03, "adamw_lr": 1e-3, "power": 0.25, "weight_decay": 0.1, "seed": 0,
    }  # fmt: skip
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    assert settings_of([optimizer], None)["lr"] == 0.03
    optimizer = HTMuon(parameter_groups(model), power=CosinePower(0.5, 0.0, steps=10))
    assert settings_of([optimizer], None)["power"] == "CosinePower"
    first = SGD([{"params": [model[0].weight], "lr": 0.1}, {"params": [model[0].bias], "lr": 0.2}])
    second = torch.optim.AdamW(model[2].parameters(), lr=torch.tensor(0.25))
    found = settings_of([first, second], None)
    assert (found["lr"], found["adamw_lr"]) == ("0.1 to 0.2", 0.25)


def test_adamw_groups_carry_no_power(tmp_path):
    model = net()
    optimizer = HTMuon(parameter_groups(model), power=0.25)
    saved = optimizer.state_dict()
    assert [group.get("power") for group in optimizer.param_groups] == [0.25, None, None]
    with htsr.Monitor(model, optimizer, run_dir=tmp_path / "run", bootstrap=0, bulk=False) as monitor:
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    groups = monitor.history.groups
    assert groups.loc[groups["algorithm"] == "adamw", "power"].isna().all()
    older = {**saved, "param_groups": [{**group, "power": 0.25} for group in saved["param_groups"]]}
    optimizer.load_state_dict(older)
    optimizer.load_state_dict(saved)
    assert [group.get("power") for group in optimizer.param_groups] == [0.25, None, None]


def test_about_stands_in_run_json_and_in_every_table(tmp_path):
    torch.manual_seed(5)
    about = {"dropout": np.float32(0.5), "data": Path("a/b"), "tied": True, "note": None, "width": torch.tensor(3)}
    history = run(tmp_path / "run", about=about).history
    plain = {"dropout": 0.5, "data": str(Path("a/b")), "tied": True, "note": None, "width": 3}
    expected = {"lr": 0.1, "weight_decay": 0.0, "seed": 5, **plain}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"] == expected
    assert htsr.History(tmp_path / "run").settings == expected
    runs = htsr.History.load_many(tmp_path)
    assert runs.settings.loc["run"].to_dict() == expected
    assert expected.items() <= runs.summary().iloc[0].to_dict().items()
    assert "lr = 0.1, weight_decay = 0, seed = 5, dropout = 0.5" in repr(history)


@pytest.mark.parametrize(
    ("about", "message"),
    [("lr=1", "a dict such as"), ({1: 2}, "texts as names, got 1"), ({"sizes": [1, 2]}, r"about\['sizes'\].*\[1, 2\]")],
)
def test_about_refuses_what_json_cannot_keep(about, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        run(tmp_path / "run", about=about)
    assert not (tmp_path / "run").exists()


def test_labels_say_what_differs():
    assert settings_text({"power": 0.125, "lr": 0.02, "seed": 3}) == "p = 1/8, lr = 0.02, seed = 3"
    assert settings_text({"power": 0.123}) == "p = 0.123"
    runs = {"a": {"power": 0.0, "lr": 0.1, "seed": 0}, "b": {"power": 0.25, "lr": 0.1, "seed": 0}, "c": {"lr": 0.1}}
    assert labels(runs) == {"a": "p = 0, seed = 0", "b": "p = 1/4, seed = 0", "c": "no power, no seed"}
    assert labels({"a": {"lr": 1.0}, "b": {"lr": 2.0}, "c": {"lr": 1.0}})["c"] == "lr = 1 (c)"
    assert labels({"a": {"lr": 1.0}, "b": {"lr": 1.0}}) == {"a": "a", "b": "b"}


def test_runs_are_found_in_folders_of_folders_and_named_by_their_settings(tmp_path):
    for seed in (0, 1):
        torch.manual_seed(seed)
        run(tmp_path / "sweep" / "lr-0.1" / f"seed-{seed}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")  # of another program
    (tmp_path / "sweep" / "again").symlink_to(tmp_path, target_is_directory=True)
    runs = htsr.History.load_many(tmp_path)
    assert runs.legend == {"seed-0": "seed = 0", "seed-1": "seed = 1"}
    named = htsr.History.load_many({"mine": tmp_path / "sweep" / "lr-0.1" / "seed-0"})
    assert named.legend == {"mine": "mine"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(htsr.InputError, match=r"found no run\.json beside a folder captures"):
        htsr.History.load_many(tmp_path / "empty")


def test_a_noisy_scalar_is_told_by_the_mean_of_its_last_tenth(tmp_path):
    monitor = run(tmp_path / "run")
    for step in range(40):
        monitor._writer.record(step, {"loss": float(step)})
    monitor._writer.record(40, {"accuracy": 0.5})
    history = monitor.history
    assert history.last_tenths() == {"loss": (36 + 37 + 38 + 39) / 4}
    assert history.last_tenths(at_least=1) == {"loss": 37.5, "accuracy": 0.5}
    assert "loss 39 (mean of the last tenth 37.5), accuracy 0.5" in screen(history)
    assert f"{history.run_dir} (lr = 0.1, weight_decay = 0" in screen(history)
    row = htsr.History.load_many(tmp_path).summary().iloc[0]
    assert (row["loss"], row["loss_last_tenth"], row["accuracy"]) == (39, 37.5, 0.5)
    assert "accuracy_last_tenth" not in row


def test_a_run_without_weights_says_what_it_has(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with htsr.Monitor(model, optimizer, every=1, capture="gradients", run_dir=tmp_path / "run", bootstrap=0) as monitor:
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    history = monitor.history
    for ask in (history.alpha, history.plot):
        with pytest.raises(htsr.InputError, match=r"captured gradients.*Monitor\(capture="):
            ask()
    assert history.quantities == ("gradients",)
    assert list(history.alpha("gradients")) == ["0", "2"]
    assert "alpha of gradients by step and layer" in repr(history)
    assert "gradients: median alpha" in screen(history)
    assert "These are the spectra of the gradients" in history.save(tmp_path / "page.html").read_text()
    assert history._repr_html_()
    assert "alpha_median" not in htsr.History.load_many(tmp_path).summary()
