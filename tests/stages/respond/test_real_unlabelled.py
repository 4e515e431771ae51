"""Real models on real prompts: the source whose answers are right on the prompts with a result answers those without one."""

import os
from pathlib import Path

import pytest
import yaml

from fusion import pipeline
from fusion.config import loading
from fusion.stages.context import RunContext
from fusion.stages.evaluate import original_models
from fusion.stages.respond import unlabelled

REAL = os.environ.get("FUSION_REAL_MODELS", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models"),
]
RECIPE = yaml.safe_load((Path(__file__).parents[3] / "configs/real_skills.yaml").read_text())
LABELLED, BARE = 6, 4


@pytest.fixture
def config(tmp_path):
    """The recipe `real_skills` on one skill with few prompts, and the pivot as a source of itself."""
    pivot = RECIPE["pivot"] | {"path": str(Path(REAL, "smollm2-135m-instruct"))}
    qwen = RECIPE["sources"][0] | {"path": str(Path(REAL, "qwen2.5-coder-0.5b-instruct"))}
    qwen["shots"] = {"shopping": qwen["shots"]["shopping"]}
    known = RECIPE["data"]["train"][1] | {"limit": LABELLED}
    bare = known | {"skip": LABELLED, "limit": BARE, "response": None, "check": {"kind": "ended"}}
    heldout = [RECIPE["data"]["heldout"][1] | {"limit": 2}]
    responses = RECIPE["data"]["responses"] | {"keep": "all", "unlabelled": "best"}
    data = {"responses": responses, "train": [known, bare], "heldout": heldout, "max_length": 128}
    raw = RECIPE | {"runs": str(tmp_path), "pivot": pivot, "sources": [{**pivot, "name": "itself"}, qwen], "data": data}
    return loading.parse(raw | {"evaluation": {}, "training": {"max_steps": 1}}, "test")


def test_who_is_right_where_that_can_be_told_answers_the_rest(config):
    pipeline.run(config, "respond")
    context = RunContext(config)
    assert unlabelled.best_sources(context) == {"shopping": "qwen"}
    written = unlabelled.all_answers(context)
    assert {name: len(of) for name, of in written.items()} == {"itself": LABELLED, "qwen": LABELLED + BARE}
    assert all("Answer: " in example.response for example in context.train_examples)
    assert original_models(context) == ["pivot", "qwen"]
