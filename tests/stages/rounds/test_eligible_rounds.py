"""Sources read only what they may teach: texts to prompts that they answered rightly themselves."""

import json

import pytest

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import loading
from fusion.config.models import BUILTIN
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder


def config(folder, otherwise):
    check = {"kind": "final_answer", "compare": "text"}
    data = [
        {"path": f"builtin:{s}", "domain": s, "split": "fusion", "limit": 8, "check": check} for s in ("sums", "sort")
    ]
    return loading.parse(
        {
            "name": f"eligible-{otherwise}", "runs": str(folder),
            "pivot": {"path": f"{BUILTIN}pivot"},
            "sources": [{"name": name, "path": f"{BUILTIN}{name}"} for name in ("sums", "sort")],
            "data": {
                "responses": {"kind": "best_source", "max_new_tokens": 24}, "train": data,
                "heldout": [{"path": "builtin:sums", "domain": "sums", "split": "heldout", "limit": 2}],
            },
            "objectives": [{"kind": "cross_entropy"}], "baseline": False,
            "training": {"learning_rate": 1e-5, "max_steps": 1, "save_strategy": "no"},
            "rounds": {
                "count": 1, "prompts": 8, "num_generations": 2, "max_completion_length": 12, "replay": 0,
                "weighting": {"kind": "eligibility", "otherwise": otherwise},
                "objectives": [{"kind": "forward_kl"}, {"kind": "policy_gradient"}],
                "training": {"num_train_epochs": 1, "per_device_train_batch_size": 4},
            },
        },
        "test",
    )  # fmt: skip


@pytest.mark.parametrize("otherwise", ["none", "all"])
def test_each_text_is_read_by_those_who_answered_its_prompt_rightly(tmp_path, otherwise):
    chosen = config(tmp_path, otherwise)
    pipeline.run(chosen, "rounds")
    one = RoundContext.of(RunContext(chosen), 1, round_folder(chosen, 0) / "model")
    for number, name in enumerate(("sums", "sort")):
        cache = Cache(one.config.folder / "cache" / name)
        shares = {text.example.id: one.eligibility[text.example.prompt_id] for text in one.written}
        right = {id for id, each in shares.items() if each[number] or (otherwise == "all" and not any(each))}
        assert {id for id in shares if id in cache} == right
        assert 0 < len(right) < len(shares)
    assert all(id in Cache(one.config.folder / "cache/pivot") for id in shares)
    log = json.loads((one.config.folder / "train/unified/log.json").read_text())
    assert all(entry["loss/forward_kl/sums"] + entry["loss/forward_kl/sort"] > 0 for entry in log)
    assert all(entry["match/sums"] + entry["match/sort"] <= 1 for entry in log), "no text has two experts here"
