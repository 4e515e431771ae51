"""Every model of a run has a role in words, a label that tells it from a domain, and a sentence."""

import pytest

from fusion.report.model_roles import LABEL_LENGTH, explanations, label, role
from fusion.runtime.run_file import DataCounts, ResponseCounts, RunFile
from tests.helpers.report_runs import run_json

RUN = RunFile.model_validate(run_json())
NAMES = ["unified", "pairwise", "finetune", "pivot", "smol"]


@pytest.mark.parametrize(
    ("model", "said"), zip(NAMES, ["fused", "fused", "fine-tuned", "pivot", "source"], strict=True)
)
def test_a_role_is_what_the_model_is_to_the_run(model, said):
    assert role(model, RUN) == said


def test_a_model_that_the_run_does_not_know_has_no_role_and_its_name_as_label():
    assert role("somebody", RUN) == ""
    assert label("somebody", RUN) == "somebody"


def test_a_label_says_the_role_unless_the_name_does():
    assert [label(name, RUN) for name in ("smol", "pivot")] == ["smol (source)", "pivot"]


def test_a_long_name_loses_its_middle_and_keeps_both_ends():
    name = "Qwen2.5-Coder-0.5B-Instruct-GGUF"
    short = label(name, RUN)
    assert len(short) <= LABEL_LENGTH
    assert short.startswith("Qwen2.5")
    assert short.endswith("GGUF")


def test_each_evaluated_model_is_explained_in_a_sentence_and_the_result_is_named():
    found = dict(explanations(NAMES, RUN))
    assert list(found) == ["unified", "pairwise", "finetune", "pivot", "smol, tiny-llama"]
    assert all(sentence.endswith(".") and sentence.startswith("the ") for sentence in found.values())
    assert "the result of this run" in found["unified"]
    assert "the result of this run" not in found["pairwise"]


def test_a_strategy_that_was_not_evaluated_is_not_explained():
    assert "pairwise" not in dict(explanations(["unified", "finetune"], RUN))


def test_where_sources_answered_plain_fine_tuning_learned_what_the_data_had():
    asked = RUN.model_copy(update={"responses": []})
    answered = RUN.model_copy(update={"responses": [ResponseCounts("a", "d", 3, 3, 2, 2)], "data": None})
    words = {
        run: dict(explanations(NAMES, each))[RUN.baseline] for run, each in (("text", asked), ("answers", answered))
    }
    assert "on the same texts" in words["text"]
    assert "on the responses that the data have" in words["answers"]
    counted = answered.model_copy(update={"data": DataCounts(train={"d": 5000}, fine_tuned={"d": 1000, "e": 200})})
    assert "on the 1,200 responses that the data have" in dict(explanations(NAMES, counted))[RUN.baseline]
    prompts_alone = answered.model_copy(update={"data": DataCounts(train={"d": 5000})})
    assert "on the same texts" in dict(explanations(NAMES, prompts_alone))[RUN.baseline]


def test_where_no_term_reads_predictions_none_are_said_to_be_learned():
    counts = [ResponseCounts("a", "d", 3, 3, 2, 2)]
    alone = RUN.model_copy(update={"responses": counts, "learns_predictions": False})
    found = dict(explanations(NAMES, alone))
    assert "on the texts alone" in found["unified"]
    assert "on the texts alone" in found["pairwise"]
    assert found["unified"].endswith("It learned 2 answers that sources wrote, and none of their predictions.")
    both = dict(explanations(NAMES, RUN.model_copy(update={"responses": counts})))
    assert both["unified"].endswith("It learned 2 answers that sources wrote.")
