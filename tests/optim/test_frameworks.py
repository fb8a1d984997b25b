"""HTMuon in transformers' Trainer and in Lightning, saved and resumed."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from htsr.optim import CosinePower, HTMuon, optimizer_cls_and_kwargs, parameter_groups


def small_gpt2():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    return transformers.GPT2LMHeadModel(config)


def test_the_trainer_trains_saves_and_resumes(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    tokens = torch.randint(32, (16, 12), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row} for row in tokens]

    def trainer(folder):
        model = small_gpt2()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / folder), max_steps=6, save_steps=3, per_device_train_batch_size=4, report_to=[],
            lr_scheduler_type="constant", use_cpu=True, seed=1, disable_tqdm=True, logging_steps=1,
        )  # fmt: skip
        return transformers.Trainer(
            model,
            arguments,
            train_dataset=data,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(
                model, lr=0.02, power=CosinePower(0.5, 0.0, steps=6), interval=2, splits={"*.mlp.c_fc.weight": 2}
            ),
        )

    whole = trainer("whole")
    whole.train()
    losses = [row["loss"] for row in whole.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
    resumed = trainer("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    optimizer = resumed.optimizer.optimizer
    assert isinstance(optimizer, HTMuon)
    assert optimizer.param_groups[0]["step"] == 6
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_gpt2_is_read_the_right_way_round():
    groups = parameter_groups(small_gpt2())
    by_name = {name: group for group in groups for name, _ in group["params"]}
    attention = by_name["transformer.h.0.attn.c_attn.weight"]
    assert (attention["layout"], attention["split"]) == ("transposed", 3)
    mlp = by_name["transformer.h.0.mlp.c_fc.weight"]
    assert (mlp["algorithm"], mlp["layout"], mlp["split"]) == ("htmuon", "transposed", None)
    assert by_name["transformer.wte.weight"]["algorithm"] == "adamw"


def test_lightning_trains_saves_and_resumes(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = HTMuon(parameter_groups(self), lr=0.02, power=CosinePower(0.5, 0.0, steps=8), dtype=None)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    draw = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 8, generator=draw), torch.randint(3, (16,), generator=draw))
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def fit(epochs, checkpoint=None, **settings):
        torch.manual_seed(0)
        module = Module()
        trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=tmp_path, **quiet, **settings)
        trainer.fit(module, DataLoader(data, batch_size=8), ckpt_path=checkpoint)
        return module, trainer

    whole, _ = fit(4, enable_checkpointing=False)
    _, half = fit(2, enable_checkpointing=True)
    resumed, trainer = fit(4, half.checkpoint_callback.best_model_path, enable_checkpointing=False)
    assert trainer.optimizers[0].param_groups[0]["step"] == 8
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
