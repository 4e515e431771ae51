"""Limits that other projects' users met hours later: `fusion plan` says each in a sentence, and ends with an error."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import yaml

from fusion import cli
from tests.helpers import runs

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}


def planned(folder, *arguments: str, **changes) -> tuple[int, str]:
    """The status of `fusion plan` on the helper's run with these changes, and all that it said."""
    (folder / "run.yaml").write_text(yaml.safe_dump(runs.raw(folder) | changes))
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(sys, "argv", ["fusion", "plan", str(folder / "run.yaml"), *arguments])
        status = cli.run()
    return status, said.getvalue()


def change(folder, name: str, **values) -> None:
    file = runs.models(folder)[name] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_gpt2_with_a_short_position_table(tmp_path):
    file = runs.models(tmp_path)["qwen"] / "config.json"
    size = json.loads(file.read_text())["vocab_size"]
    file.write_text(json.dumps(GPT2 | {"vocab_size": size, "n_positions": 24, "n_ctx": 1024}))
    status, said = planned(tmp_path)
    assert status != 0
    assert "source qwen" in said
    assert "reads at most 24 tokens (n_positions)" in said
    assert "train.jsonl, line" in said
    assert "heldout.jsonl, line" in said


def test_a_rope_model_beyond_its_positions_and_with_scaling(tmp_path):
    change(tmp_path, "pivot", max_position_embeddings=24)
    assert "pivot" in planned(tmp_path)[1]
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 24, "rope_theta": 1e4}
    change(tmp_path, "pivot", rope_parameters=scaling)
    assert planned(tmp_path)[0] == 0


def test_a_bitsandbytes_checkpoint_as_a_pivot_and_as_a_source(tmp_path):
    for name, said in (("qwen", "needs the package bitsandbytes"), ("pivot", "such weights cannot be trained")):
        change(tmp_path, name, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
        status, text = planned(tmp_path, *(["--gpu", "h100"] if name == "pivot" else []))
        assert status != 0
        assert said in text


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type is 'cosin'; did you mean cosine?"),
        ({"bf16": "false"}, "bf16 must be true or false, got 'false'"),
        ({"bf16": True, "fp16": True}, "bf16 and fp16 are both true"),
        ({"lr_scheduler_kwargs": {"min_lr": 1e-6}}, "cannot be for lr_scheduler_type linear"),
        ({"optim": "adamw_bnb_8bit"}, "training.optim adamw_bnb_8bit needs the package bitsandbytes"),
        ({"report_to": ["wandb"]}, "training.report_to wandb needs the package wandb"),
    ],
)
def test_training_arguments(tmp_path, training, said):
    status, text = planned(tmp_path, training=training)
    assert status != 0
    assert said in text


def test_a_laptop_plans_a_run_in_half_precision_for_another_gpu(tmp_path):
    status, text = planned(tmp_path, "--gpu", "h100", training={"fp16": True, "optim": "adamw_bnb_8bit"})
    assert status == 0
    assert "On this machine the run would stop: training.optim adamw_bnb_8bit needs the package bitsandbytes" in text
