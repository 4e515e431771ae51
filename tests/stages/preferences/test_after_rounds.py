"""Preferences behind a round: both answers of a pair are the pivot's own, with a right one of a source beside them."""

from __future__ import annotations

import json

import pytest

from fusion import pipeline
from fusion.config import loading
from fusion.config.models import BUILTIN
from fusion.stages.context import RunContext
from fusion.stages.preferences.context import PreferenceContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder
from fusion.stages.rounds.texts import read_texts

FINAL = {"kind": "final_answer", "compare": "text"}


@pytest.mark.slow
def test_wrpo_compares_what_the_pivot_wrote_in_rounds_and_begins_at_a_margin_of_zero(tmp_path):
    raw = {
        "name": "after", "runs": str(tmp_path), "seed": 3, "baseline": False,
        "pivot": {"path": f"{BUILTIN}pivot"},
        "sources": [{"name": "sorter", "path": f"{BUILTIN}sort"}],
        "data": {
            "train": [{"path": "builtin:sort", "domain": "sort", "split": "fusion", "limit": 60, "check": FINAL}],
            "heldout": [{"path": "builtin:sort", "domain": "sort", "split": "heldout", "limit": 2}],
            "responses": {"kind": "best_source", "samples": 2, "temperature": 1.0, "max_new_tokens": 16},
        },
        "objectives": [{"kind": "cross_entropy"}],
        "training": {"max_steps": 30, "save_strategy": "no", "per_device_train_batch_size": 8},
        "rounds": {
            "count": 1, "prompts": 60, "num_generations": 4, "max_completion_length": 16, "replay": 0.0,
            "objectives": [{"kind": "forward_kl"}], "training": {"max_steps": 1},
        },
        "preferences": {"objectives": [{"kind": "wrpo"}], "training": {"max_steps": 2}},
    }  # fmt: skip
    config = loading.parse(raw, "test")
    pipeline.run(config, "preferences")
    run = RunContext(config)
    written = read_texts(RoundContext.of(run, 1, round_folder(config, 0) / "model"))
    judged = {text.example.id: text.passed for text in written}
    last = PreferenceContext.of(run)
    assert len(last.pairs) > 10
    for pair in last.pairs:
        of_source, chosen, rejected = (last.train_examples[number] for number in pair.answers)
        assert (judged[chosen.id], judged[rejected.id]) == (True, False)
        assert of_source.prompt_id == chosen.prompt_id == rejected.prompt_id
    first = json.loads((config.folder / "preferences/train/unified/log.json").read_text())[0]
    assert first["wrpo/margins"] == pytest.approx(0, abs=1e-4)
    assert json.loads((config.folder / "fused/fusion.json").read_text())["from"] == "preferences"
