"""A source that looks ahead reads what it is shown before the pivot's own text, too."""

import dataclasses
from pathlib import Path

from fusion.config import loading
from fusion.responses.rollouts import Rollout
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.texts import WrittenText, encode_for_source
from tests.helpers import runs


def test_a_source_that_looks_ahead_does_so_before_texts_of_the_pivot(tmp_path):
    raw = runs.raw(tmp_path, rounds={"objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy"}]})
    raw["sources"][0]["look_ahead"] = True
    raw["data"]["train"][0]["look_ahead"] = "{last_message} Solution: {response}"
    run = RunContext(loading.parse(raw, "test"))
    one = RoundContext.of(run, 1, Path(run.config.pivot.path))
    example = run.original_examples[0]
    for name, looks in {"neox": True, "qwen": False}.items():
        both = [example, dataclasses.replace(example, look_ahead=None)]
        texts = [WrittenText(each, Rollout((), each.response, None), True, 1.0) for each in both]
        ahead, ordinary = encode_for_source(one, name, texts)
        assert ahead.input_ids[ahead.start :] == ordinary.input_ids[ordinary.start :]
        assert (ahead.start > ordinary.start) == looks
