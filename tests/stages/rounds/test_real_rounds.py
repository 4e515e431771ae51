"""A round on real models: what SmolLM2 writes in its chat template, Qwen reads in its own."""

import json
import os
from pathlib import Path

import pytest

from fusion import pipeline
from fusion.config import loading
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder
from fusion.tokenizers import vocabulary_bytes

REAL = os.environ.get("FUSION_REAL_MODELS", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models"),
]


def test_a_round_on_real_models_begins_at_the_pivot_that_wrote_and_reads_the_same_bytes(tmp_path):
    check = {"kind": "final_answer"}
    data = {"path": "builtin:variables", "domain": "variables"}
    raw = {
        "name": "real", "runs": str(tmp_path),
        "pivot": {"path": str(Path(REAL, "smollm2-135m-instruct"))},
        "sources": [{"name": "qwen", "path": str(Path(REAL, "qwen2.5-coder-0.5b-instruct"))}],
        "data": {
            "train": [data | {"split": "fusion", "limit": 4, "response": "{workings}", "check": check}],
            "heldout": [data | {"split": "heldout", "limit": 1}],
            "validation": [data | {"split": "validation", "limit": 2}],
        },
        "objectives": [{"kind": "cross_entropy"}], "baseline": False,
        "training": {"max_steps": 1, "learning_rate": 1e-5, "save_strategy": "no", "eval_strategy": "no"},
        "rounds": {
            "count": 1, "prompts": 3, "num_generations": 2, "max_completion_length": 24, "replay": 0,
            "validation_generations": 1, "training": {"max_steps": 1, "learning_rate": 1e-6},
            "objectives": [{"kind": "policy_gradient"}, {"kind": "forward_kl"}],
        },
    }  # fmt: skip
    chosen = loading.parse(raw, "test")
    pipeline.run(chosen, "rounds")
    one = RoundContext.of(RunContext(chosen), 1, round_folder(chosen, 0) / "model")
    (entry,) = json.loads((one.config.folder / "train/unified/log.json").read_text())
    assert entry["policy_gradient/ratio"] == pytest.approx(1, abs=1e-4)
    assert entry["match/qwen"] > 0.8
    assert 0 < entry["loss/forward_kl/qwen"] < 20
    table = vocabulary_bytes(one.tokenizers["qwen"])
    for text, encoded in zip(one.written, one.encoded("qwen"), strict=True):
        *ids, end = encoded.input_ids[encoded.start :]
        assert b"".join(table[index] for index in ids) == text.example.response.encode()
        assert one.tokenizers["qwen"].decode([end]) == "<|im_end|>"
