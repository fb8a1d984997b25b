"""Optimizers that a framework makes."""

import pytest
import torch

import htsr


@pytest.mark.slow
def test_the_optimizer_of_a_trainer(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    ids = [{"input_ids": torch.arange(16), "labels": torch.arange(16)}] * 8
    trainer = transformers.Trainer(
        transformers.GPT2LMHeadModel(config),
        transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, learning_rate=1e-3),
        train_dataset=ids,
    )
    trainer.create_optimizer()
    batch = next(iter(trainer.get_train_dataloader()))
    audit = htsr.audit_steps(trainer.model, trainer.optimizer, lambda model: model(**batch).loss)
    assert set(audit.last["verdict"]) == {"as promised"}
    rows = audit.last.set_index("name")
    # Conv1D keeps its weights as (in, out)
    assert tuple(rows.loc["transformer.h.0.mlp.c_fc", ["n_out", "n_in"]]) == (64, 16)
    assert rows.loc["transformer.h.0.mlp.c_fc", "alignment"] > 0
    assert "<table" in audit._repr_html_()
