"""Runs that share a store write and read a round's texts once, where they begin it with the same model."""

from fusion import pipeline
from fusion.config import loading
from fusion.models.loading import ModelRef, model_fingerprint
from fusion.runtime.artifacts import artifact_key
from fusion.runtime.run_record import RunRecord
from tests.helpers import runs

REPLAYED = {"kind": "cross_entropy", "part": "replay", "weight": 0.1}


def run(folder, name, kind):
    rounds = {
        "count": 2, "prompts": 4, "num_generations": 2, "max_completion_length": 6, "replay": 0.5,
        "objectives": [{"kind": kind}, REPLAYED], "training": {"max_steps": 2, "save_strategy": "no", "learning_rate": 1e-2},
    }  # fmt: skip
    raw = runs.raw(
        folder, name=name, strategies=["unified"], rounds=rounds, store=str(folder / "store"), baseline=False
    )
    config = loading.parse(raw, "test")
    pipeline.run(config, "rounds")
    return config


def test_what_another_run_wrote_and_read_is_not_made_again(tmp_path):
    first, second = run(tmp_path, "forward", "forward_kl"), run(tmp_path, "reverse", "reverse_kl")
    stages = {stage["name"]: stage.get("skipped", False) for stage in RunRecord(second.folder).read()["stages"]}
    again = [name for name, skipped in stages.items() if name.startswith("round") and skipped]
    assert again == ["round 1: write", *(f"round 1: {name} reads" for name in ("pivot", "neox", "qwen"))]
    for part in ("responses/pivot", "cache/pivot", "cache/neox"):
        one, other = (config.folder / "rounds/1" / part for config in (first, second))
        assert one.resolve() == other.resolve()
        one, other = (config.folder / "rounds/2" / part for config in (first, second))
        assert artifact_key(one) != artifact_key(other), "the pivot is another by then"
    ends = [config.folder / "rounds/2/train/unified/model" for config in (first, second)]
    assert len({model_fingerprint(ModelRef(str(end))) for end in ends}) == 2
