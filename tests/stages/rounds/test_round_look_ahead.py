"""A source that looks ahead reads what it is shown before the pivot's own text, too."""

from pathlib import Path

from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.texts import encode_for_source
from tests.helpers import runs


def test_a_source_that_looks_ahead_does_so_before_texts_of_the_pivot(tmp_path):
    raw = runs.raw(tmp_path, rounds={"objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy"}]})
    raw["sources"][0]["look_ahead"] = True
    raw["data"]["train"][0]["look_ahead"] = "{last_message} Solution: {response}"
    run = RunContext(runs.loading.parse(raw, "test"))
    one = RoundContext.of(run, 1, Path(run.config.pivot.path))
    example = run.original_examples[0]
    for name, shown in {"neox": "Solution: ", "qwen": example.prompt}.items():
        (encoded,) = encode_for_source(one, name, [example])
        prompt = run.tokenizers[name].decode(encoded.input_ids[: encoded.start])
        assert (shown in prompt, "Solution: " in prompt) == (True, name == "neox")
