"""`scoring: lm_eval`: answers to our prompts scored by lm-eval's own filters, beside our own scoring of the same answers."""

import pytest

from fusion.models.loading import ModelRef
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate, scoring_of
from fusion_eval.suites.scoring import SCORING_VERSION
from fusion_eval.suites.suite import load_suite
from fusion_eval.suites.tasks import load_subtasks
from tests.helpers.lm_eval_verdicts import score


def still(total):
    return lambda units: None


LM_EVAL = {
    "bbh": "exact_match", "arc_c": "exact_match", "mmlu": "exact_match", "gsm8k": "exact_match", "math": "math_verify",
    "mbpp": "pass_at_1", "humaneval": "pass@1", "ifeval": "prompt_level_strict_acc", "drop": "em",
}  # fmt: skip


def test_every_task_is_scored_by_lm_evals_own_rules_where_it_has_them(data, llama, tmp_path):
    how = BenchmarkSettings(
        data=data, limit=1, max_new_tokens=2, allow_code_execution=True, batch_size=4, scoring="lm_eval"
    )
    result = evaluate(ModelRef(str(llama)), load_suite("infi11"), how, name="m", out=tmp_path, progress=still)
    assert {
        sample.domain: max(sample.metrics, key=lambda name: name == LM_EVAL[sample.domain]) for sample in result.samples
    } == LM_EVAL
    assert result.provenance["skipped"].keys() == {"theoremqa", "hellaswag"}
    assert "lm-eval has no filter" in result.provenance["skipped"]["hellaswag"]


@pytest.mark.parametrize(
    ("task", "text", "ours", "theirs"),
    [
        ("gsm8k", r"So it is $\boxed{0}$. She has 5 left.", 1.0, 0.0),  # lm-eval takes the last number
        ("gsm8k", "It is 0.", 1.0, 1.0),
        ("arc_c", "B. fire is hot.", 1.0, 0.0),  # lm-eval compares the whole answer with the letter
        ("arc_c", "b.", 1.0, 1.0),
        ("drop", "There were 41.\nAnswer: 41", 1.0, 0.0),
        ("drop", "41", 1.0, 1.0),
    ],
)
def test_our_scoring_and_lm_evals_differ_where_the_documentation_says(data, task, text, ours, theirs):
    for scoring, expected in (("fusion", ours), ("lm_eval", theirs)):
        (subtask, *_) = load_subtasks(task, data, scoring=scoring)
        assert score(subtask, subtask.task.eval_docs[0], text) == expected


def test_another_scoring_stands_beside_ours_and_asks_nothing_again(data, llama, tmp_path):
    suite = load_suite("infi11").model_copy(update={"tasks": ["gsm8k"]})
    answers = []
    for scoring in ("fusion", "lm_eval"):
        how = BenchmarkSettings(data=data, max_new_tokens=3, scoring=scoring)
        result = evaluate(ModelRef(str(llama)), suite, how, name="m", out=tmp_path, progress=still)
        assert result.provenance["key"]["scoring"] == scoring
        answers.append([sample.answer for sample in result.samples])
    assert answers[0] == answers[1]
    assert {file.name for file in (tmp_path / "m").iterdir()} == {"infi11.json", "infi11-lm_eval.json"}
    (kept,) = (tmp_path / "answers").glob("*/*.jsonl")  # the second scoring found every answer and added none
    assert f"scoring-{SCORING_VERSION}" in kept.name


def test_a_suite_may_say_who_scores(tmp_path):
    (tmp_path / "mine.yaml").write_text("template: plain\nscoring: lm_eval\ntasks: [gsm8k]")
    assert scoring_of(load_suite(str(tmp_path / "mine.yaml")), BenchmarkSettings()) == "lm_eval"
    assert scoring_of(load_suite(str(tmp_path / "mine.yaml")), BenchmarkSettings(scoring="fusion")) == "fusion"
