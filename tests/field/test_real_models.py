"""A whole run on real models, in mixed precision and in float32: SmolLM2-135M from Qwen2.5-Coder-0.5B and Gemma 3 270M."""

import json
import os
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion import pipeline
from fusion.config import loading
from fusion_eval.results import Result

REAL = os.environ.get("FUSION_REAL_MODELS")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models"),
]
SHOTS = "What is 3 + 4? Answer with the number alone.\n7\nWhat is 9 + 26? Answer with the number alone.\n35\n"


def sums(file, count, seed):
    """Write questions and answers; the same for the same seed."""
    draw = random.Random(seed)
    pairs = [(draw.randint(2, 99), draw.randint(2, 99)) for _ in range(count)]
    rows = [{"question": f"What is {a} + {b}? Answer with the number alone.", "answer": str(a + b)} for a, b in pairs]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The run in mixed precision and in float32."""
    folder = tmp_path_factory.mktemp("real")
    columns = {"domain": "sums", "prompt": "{question}", "response": "{answer}"}
    raw = {
        "runs": str(folder),
        "store": str(folder / "store"),
        "pivot": {"path": f"{REAL}/smollm2-135m-instruct", "template": "chat"},
        "sources": [
            {"name": "qwen", "path": f"{REAL}/qwen2.5-coder-0.5b-instruct", "template": "chat"},
            {"name": "gemma", "path": f"{REAL}/gemma-3-270m", "shots": SHOTS, "answer_prefix": "\n", "stop": ["\n"]},
        ],
        "data": {
            "train": [{"path": sums(folder / "train.jsonl", 32, 1), **columns}],
            "heldout": [{"path": sums(folder / "heldout.jsonl", 12, 2), **columns}],
            "max_length": 128,
        },
        "extract": {"batch_tokens": 1024},
        "objectives": [
            {"kind": "cross_entropy", "weight": 0.5},
            {"kind": "forward_kl", "weight": 0.4},
            {"kind": "gld", "weight": 0.05},
        ],
        "weighting": {"kind": "gold_posterior", "level": "position"},
        "evaluation": {"exact_match": ["sums"], "max_new_tokens": 12},
        "baseline": False,
    }
    training = {
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "report_to": [],
    }
    for name in ("mixed", "whole"):
        pipeline.run(loading.parse(raw | {"name": name, "training": training | {"bf16": name == "mixed"}}, "test"))
    return {name: folder / name for name in ("mixed", "whole")}


def log(folder):
    return json.loads((folder / "train" / "unified" / "log.json").read_text())


def test_the_first_loss_is_that_of_float32_and_both_fall(folders):
    """Later ones part: weights that come from bfloat16 lie on its steps, where the first small updates are rounded away."""
    mixed, whole = log(folders["mixed"]), log(folders["whole"])
    for name in ("loss", "loss/cross_entropy", "loss/forward_kl/qwen", "loss/forward_kl/gemma"):
        assert mixed[0][name] == pytest.approx(whole[0][name], rel=0.02, abs=0.02), name
    assert mixed[-1]["loss"] < mixed[0]["loss"]
    assert whole[-1]["loss"] < whole[0]["loss"]


def test_the_fused_model_is_better_than_the_pivot_in_both(folders):
    for folder in folders.values():
        nll = {
            name: sum(sample.nll for sample in Result.load(folder / "eval" / name / "heldout.json").samples)
            for name in ("pivot", "unified")
        }
        assert nll["unified"] < 0.9 * nll["pivot"]


def test_plain_transformers_chats_with_the_fused_model_and_it_stops_where_ours_did(folders):
    fused = folders["mixed"] / "fused"
    tokenizer, model = (
        AutoTokenizer.from_pretrained(fused),
        AutoModelForCausalLM.from_pretrained(fused, dtype=torch.float32),
    )
    stopped = 0
    for sample in Result.load(folders["mixed"] / "eval" / "unified" / "heldout.json").samples:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": sample.prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(out, skip_special_tokens=True) == sample.answer
        stopped += out[-1].item() == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stopped >= 10  # of 12: sums are short


def test_a_base_model_answers_behind_its_worked_examples_and_stops_at_its_end(folders):
    for sample in Result.load(folders["mixed"] / "eval" / "gemma" / "heldout.json").samples:
        assert sample.answer.strip().isdigit()
