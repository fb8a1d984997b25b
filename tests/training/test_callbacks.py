"""The callbacks and trackers in the real frameworks, on short real trainings."""

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from tests.training.test_monitor import make, train


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.rows = torch.randn(64, 40, generator=torch.Generator().manual_seed(5))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"x": self.rows[i]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20))

    def forward(self, x):
        return {"loss": self.body(x).square().mean()}


def hf_trainer(directory, callbacks, **options):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'htsr[transformers]'")
    arguments = transformers.TrainingArguments(
        output_dir=str(directory), per_device_train_batch_size=4, max_steps=6, gradient_accumulation_steps=2,
        logging_steps=1, save_steps=3, use_cpu=True, disable_tqdm=True, report_to="none", **options,
    )  # fmt: skip
    return transformers.Trainer(model=Net(), args=arguments, train_dataset=Rows(), callbacks=callbacks)


def test_transformers_trainer(tmp_path):
    pytest.importorskip("transformers", reason="needs transformers: pip install 'htsr[transformers]'")
    from htsr.training.transformers import HTSRCallback

    callback = HTSRCallback(every=2, capture=("weights", "gradients"))
    trainer = hf_trainer(tmp_path, [callback])
    callback.trainer = trainer
    trainer.train()
    history = htsr.History(tmp_path / "htsr")
    assert history.steps == [0, 2, 4, 6]  # optimizer steps, not micro-batches
    assert callback.monitor.failed == []
    assert np.array_equal(history.spectrum(6, "body.0").eigenvalues, htsr.esd(trainer.model.body[0].weight))
    assert len(history.alpha("gradients")) == 3
    logged = [entry for entry in trainer.state.log_history if "htsr/alpha/median" in entry]
    assert [entry["step"] for entry in logged] == history.steps
    assert logged[-1]["htsr/alpha/median"] == pytest.approx(history.alpha().loc[6].median())
    assert history.scalars["loss"].notna().sum() == 6
    assert not any(name.startswith("htsr/") for name in history.scalars)

    alone = hf_trainer(tmp_path / "alone", [])
    alone.train()
    assert all(torch.equal(a, b) for a, b in zip(alone.model.parameters(), trainer.model.parameters(), strict=True))

    again = HTSRCallback(every=1)  # resumed from its checkpoint at step 3
    trainer = hf_trainer(tmp_path, [again])
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert htsr.History(tmp_path / "htsr").steps == [0, 2, 3, 4, 5, 6]


def test_transformers_trainer_stops_on_a_condition(tmp_path):
    pytest.importorskip("transformers", reason="needs transformers: pip install 'htsr[transformers]'")
    from htsr.training.transformers import HTSRCallback

    callback = HTSRCallback(every=1, run_dir=tmp_path / "run")
    callback.on(
        "N > 0", lambda monitor, verdict: setattr(monitor, "should_stop", monitor.step_count >= 2), every_time=True
    )
    trainer = hf_trainer(tmp_path, [callback])
    trainer.train()
    assert trainer.state.global_step == 2
    assert htsr.History(tmp_path / "run").steps == [0, 1, 2]


def lightning_parts():
    lightning = pytest.importorskip("lightning.pytorch", reason="needs lightning: pip install 'htsr[lightning]'")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, batch_idx):
            loss = self.net(batch["x"])["loss"]
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def trainer(directory, callbacks, **options):
        return lightning.Trainer(
            default_root_dir=directory, accelerator="cpu", devices=1, callbacks=callbacks, log_every_n_steps=1,
            enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=2, **options,
        )  # fmt: skip

    return Module, trainer


@pytest.mark.filterwarnings("ignore")
def test_lightning_trainer(tmp_path):
    Module, make_trainer = lightning_parts()
    from lightning.pytorch.loggers import CSVLogger

    from htsr.training.lightning import HTSRCallback

    batches = torch.utils.data.DataLoader(Rows(), batch_size=4)
    callback = HTSRCallback(every=2)
    module = Module()
    logger = CSVLogger(tmp_path / "csv")
    trainer = make_trainer(tmp_path, [callback], max_steps=6, logger=logger)
    trainer.fit(module, batches)
    history = htsr.History(tmp_path / "htsr")
    assert history.steps == [0, 2, 4, 6]
    assert callback.monitor.failed == []
    assert np.array_equal(history.spectrum(6, "net.body.0").eigenvalues, htsr.esd(module.net.body[0].weight))
    assert history.scalars["train_loss"].notna().sum() >= 6
    logger.save()
    assert "htsr/alpha/median" in (tmp_path / "csv/lightning_logs/version_0/metrics.csv").read_text()

    alone = Module()
    make_trainer(tmp_path / "alone", [], max_steps=6, logger=False).fit(alone, batches)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), module.parameters(), strict=True))

    checkpoint = tmp_path / "at-6.ckpt"
    trainer.save_checkpoint(checkpoint)
    again = HTSRCallback(every=1)
    again.on(
        "N > 0", lambda monitor, verdict: setattr(monitor, "should_stop", monitor.step_count >= 8), every_time=True
    )
    resumed = make_trainer(tmp_path, [again], max_steps=12, logger=False)
    resumed.fit(Module(), batches, ckpt_path=checkpoint)
    assert htsr.History(tmp_path / "htsr").steps[:6] == [0, 2, 4, 6, 7, 8]
    assert resumed.global_step < 12

    again = make_trainer(tmp_path, [callback], max_steps=2, logger=False)  # the same callback in another fit
    again.fit(Module(), batches)
    assert callback.monitor.run_dir == tmp_path / "htsr-2"
    assert htsr.History(tmp_path / "htsr-2").steps == [0, 2]


def two_optimizers(ratio, optimizer=None):
    lightning = pytest.importorskip("lightning.pytorch", reason="needs lightning: pip install 'htsr[lightning]'")

    class GAN(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            torch.manual_seed(0)
            self.g, self.d = nn.Linear(40, 30), nn.Linear(40, 20)

        def training_step(self, batch, index):
            g, d = self.optimizers()
            for one, part, due in ((d, self.d, True), (g, self.g, index % ratio == 0)):
                if due:
                    one.zero_grad()
                    self.manual_backward(part(batch["x"]).square().mean())
                    one.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.g, self.d)]

    from htsr.training.lightning import HTSRCallback

    def fit(directory, epochs, checkpoint=None):
        callback = HTSRCallback(optimizer, every=1, bulk=False, bootstrap=0)
        trainer = lightning.Trainer(
            default_root_dir=directory, accelerator="cpu", devices=1, callbacks=[callback], logger=False,
            enable_progress_bar=False, enable_model_summary=False, max_epochs=epochs, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(GAN(), torch.utils.data.DataLoader(Rows(), batch_size=16), ckpt_path=checkpoint)
        return trainer, callback.monitor

    return fit


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ratio", "optimizer", "per_epoch"), [(1, None, 4), (2, None, 4), (2, 0, 2), (2, 1, 4)])
def test_lightning_with_two_optimizers_resumes_at_its_own_step(tmp_path, ratio, optimizer, per_epoch):
    fit = two_optimizers(ratio, optimizer)
    trainer, monitor = fit(tmp_path, 1)
    assert monitor.history.steps == list(range(per_epoch + 1))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    _, monitor = fit(tmp_path, 3, tmp_path / "c.ckpt")
    assert monitor.run_dir == tmp_path / "htsr"
    assert monitor.history.steps == list(range(3 * per_epoch + 1))
    assert monitor.failed == []
    _, monitor = fit(tmp_path, 1)
    assert monitor.run_dir == tmp_path / "htsr-2"


def test_transformers_trainer_trains_again(tmp_path):
    pytest.importorskip("transformers", reason="needs transformers: pip install 'htsr[transformers]'")
    from htsr.training.transformers import HTSRCallback

    callback = HTSRCallback(every=3, bulk=False, bootstrap=0, log_layers="body.0")
    trainer = hf_trainer(tmp_path, [callback])
    callback.trainer = trainer
    for number, name in enumerate(["htsr", "htsr-2", "htsr-3"], start=1):
        trainer.train()
        assert callback.monitor.run_dir == tmp_path / name
        assert callback.monitor.history.steps == [0, 3, 6]
        assert callback.monitor.failed == []
        directory = callback.monitor.history.events.query("kind == 'directory'")
        assert len(directory) == (number > 1)
    assert htsr.History(tmp_path / "htsr").events["kind"].tolist() == ["closed", "directory", "directory"]
    logged = [entry for entry in trainer.state.log_history if "htsr/alpha/median" in entry]
    assert {key for key in logged[-1] if key.startswith("htsr/alpha")} == {"htsr/alpha/median", "htsr/alpha/body.0"}
    again = HTSRCallback(every=1, bulk=False, bootstrap=0)
    hf_trainer(tmp_path, [again]).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.monitor.run_dir == tmp_path / "htsr-3"
    assert again.monitor.history.steps == [0, 3, 4, 5, 6]


@pytest.mark.parametrize("background", [False, True])
def test_transformers_trainer_retries_with_a_smaller_batch(tmp_path, background):
    pytest.importorskip("transformers", reason="needs transformers: pip install 'htsr[transformers]'")
    from htsr.training.transformers import HTSRCallback

    callback = HTSRCallback(every=1, bulk=False, bootstrap=0, background=background)
    trainer = hf_trainer(tmp_path, [callback], auto_find_batch_size=True)
    forward, calls = trainer.model.forward, []

    def out_of_memory_after_two_steps(x):
        calls.append(len(x))
        if len(x) == 4 and len(calls) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return forward(x)

    trainer.model.forward = out_of_memory_after_two_steps
    trainer.train()
    assert trainer.state.global_step == 6
    assert htsr.History(tmp_path / "htsr").steps == [0, 1, 2]
    assert htsr.History(tmp_path / "htsr").events["kind"].iloc[0] == "closed"
    assert callback.monitor.run_dir == tmp_path / "htsr-2"
    assert callback.monitor.history.steps[0] == 0
    assert callback.monitor.history.steps[-1] == 6
    assert not trainer.optimizer.optimizer._optimizer_step_post_hooks


def test_a_trainer_goes_on_without_a_run_directory(tmp_path, caplog):
    pytest.importorskip("transformers", reason="needs transformers: pip install 'htsr[transformers]'")
    from htsr.training.transformers import HTSRCallback

    (tmp_path / "file").write_text("")
    trainer = hf_trainer(tmp_path, [HTSRCallback(run_dir=tmp_path / "file" / "run")])
    trainer.train()
    assert trainer.state.global_step == 6
    assert "goes on without a Monitor" in caplog.text


@pytest.mark.parametrize("framework", ["transformers", "lightning"])
def test_mistakes_are_named_when_the_callback_is_made(framework):
    pytest.importorskip(framework, reason=f"needs {framework}: pip install 'htsr[{framework}]'")
    import importlib

    HTSRCallback = importlib.import_module(f"htsr.training.{framework}").HTSRCallback
    with pytest.raises(TypeError, match="evry"):
        HTSRCallback(evry=3)
    with pytest.raises(ValueError, match="every=0"):
        HTSRCallback(every=0)
    with pytest.raises(TypeError, match="log"):
        HTSRCallback(log="wandb")
    with pytest.raises(htsr.InputError, match="alfa"):
        HTSRCallback().on("alfa < 2", "stop")


def test_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate: pip install 'htsr[transformers]'")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    told = []
    accelerator.log = lambda values, step=None: told.append(step)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, batches = accelerator.prepare(model, optimizer, torch.utils.data.DataLoader(Rows(), batch_size=4))
    with htsr.Monitor(
        accelerator.unwrap_model(model), optimizer, every=2, log=accelerator.log, run_dir=tmp_path
    ) as monitor:
        for batch in batches:
            with accelerator.accumulate(model):
                accelerator.backward(model(batch["x"])["loss"])
                optimizer.step()
                optimizer.zero_grad()
    assert monitor.step_count == 8  # 16 micro-batches
    assert monitor.history.steps == [0, 2, 4, 6, 8] == told
    assert monitor.failed == []


def watch_with(log):
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=1, log=log) as monitor:
        train(model, optimizer, 2)
    assert monitor.failed == []
    return monitor.history


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'htsr[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from htsr.training.trackers import TensorBoard

    history = watch_with(TensorBoard(tmp_path))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = {point.step: point.value for point in events.Scalars("htsr/alpha/median")}
    assert points == pytest.approx(history.alpha().median(axis=1).to_dict())
    drawn = events.Histograms("htsr/esd/0")[-1].histogram_value
    assert drawn.num == len(history.spectrum(2, "0").nonzero)
    assert drawn.max == pytest.approx(np.log10(history.spectrum(2, "0").eigenvalues[-1]))


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb: pip install 'htsr[wandb]'")
    from htsr.training.trackers import WandB

    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path, project="htsr") as run:
        run.log({"loss": 1.0}, step=50)  # the training's own steps run ahead
        history = watch_with(WandB(run))
        summary = dict(run.summary)
    assert summary["htsr/step"] == 2
    assert summary["htsr/alpha/median"] == pytest.approx(history.alpha().loc[2].median())
    assert "htsr/esd/0" in summary


def test_mlflow_local_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'htsr[mlflow]'")
    from htsr.training.trackers import MLflow, TrackerGroup

    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    with mlflow.start_run() as run:
        told = []
        history = watch_with(TrackerGroup(MLflow(), lambda metrics, step: told.append(step)))
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "htsr/alpha/median")
    assert {point.step: point.value for point in found} == pytest.approx(history.alpha().median(axis=1).to_dict())
    assert told == [0, 1, 2]


def test_a_group_passes_scalars_and_histograms_on_to_trackers_that_take_them():
    from htsr.training.trackers import TrackerGroup

    class Drawing:
        def __init__(self):
            self.scalars, self.drawn = [], []

        def __call__(self, metrics, step):
            self.scalars.append(step)

        def histograms(self, spectra, step):
            self.drawn.append((step, sorted(spectra)))

    drawing, told = Drawing(), []
    watch_with(TrackerGroup(drawing, lambda metrics, step: told.append(step)))
    assert drawing.scalars == told == [0, 1, 2]
    assert drawing.drawn == [(step, [("weights", "0"), ("weights", "2")]) for step in (0, 1, 2)]
