"""Losses on real models: SmolLM2-135M against the rows of Qwen2.5-Coder-0.5B, two chat templates and two vocabularies."""

import math
import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import fusion
from fusion.objectives import ForwardKL

REAL = os.environ.get("FUSION_REAL_MODELS")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models"),
]
PIVOT, SOURCE = f"{REAL}/smollm2-135m-instruct", f"{REAL}/qwen2.5-coder-0.5b-instruct"
ROWS = [
    {"prompt": "Write a function that doubles a number.", "response": "def double(x):\n    return 2 * x"},
    {"prompt": "What is the capital of France?", "response": "The capital of France is Paris."},
]


class MixedTrainer(fusion.FusionMixin, Trainer):
    """transformers' Trainer with the terms."""


def test_the_mixin_in_trainer_adds_what_the_loss_of_the_logits_is(tmp_path):
    cache = fusion.extract(SOURCE, ROWS, top_k=10, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(PIVOT)
    model = AutoModelForCausalLM.from_pretrained(PIVOT, dtype=torch.float32).eval()
    collator = fusion.FusionCollator(tokenizer, ROWS, {"qwen": cache}, {"qwen": SOURCE})
    batch = collator([0, 1])
    targets = batch["targets"]
    with torch.no_grad():
        outputs = model(**{name: each for name, each in batch.items() if name != "targets"})
        assert outputs.logits.abs().max() > 15  # magnitudes of real models
        expected = fusion.FusionLoss([ForwardKL(weight=0.5)], len(tokenizer))(outputs.logits, targets)
        arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, use_cpu=True, report_to=[])
        trainer = MixedTrainer(
            model=model, args=arguments, objectives=[ForwardKL(weight=0.5)], processing_class=tokenizer,
            data_collator=collator, train_dataset=collator.dataset(),
        )  # fmt: skip
        found = trainer.compute_loss(model, dict(batch))
    kl = expected.terms["forward_kl/qwen"].item()
    assert 0.05 < kl < 5  # two models of the same text differ, and not by everything
    assert math.isclose(found.item(), (outputs.loss + expected.loss).item(), rel_tol=1e-5)
    assert len(targets.sources["qwen"].pairs) > 0.8 * len(targets.positions)  # code and prose meet nearly everywhere
