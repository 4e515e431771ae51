"""Preferences in the report and the model card: how many pairs, one of each domain, and what the terms said at the end."""

import json

import pytest

from fusion.report.html_page import render_page
from fusion.report.model_card import model_card
from fusion.report.preferences import LearnedTerm, learned_terms
from fusion.report.run_contents import read_run
from tests.helpers.report_runs import change, log, write_run

COUNTS = [
    {
        "domain": "sums", "right": 1400, "wrong": 30, "pairs": 1024, "prompt": "6 * 7 <i>?", "chosen": "it is 42",
        "rejected": "<b>41</b>", "chosen_by": "pivot+smol", "rejected_by": "tiny-llama",
    },
    {"domain": "dates", "right": 9, "wrong": 0, "pairs": 0},
]  # fmt: skip


def steps(*margins: float) -> list[dict]:
    """A log of one term, with a validation entry between, which has none of its numbers."""
    entries = [
        {"step": n, "loss": 0.5, "dpo/chosen": -1.0, "dpo/rejected": -1 - m, "dpo/margins": m, "dpo/accuracies": 0.9}
        for n, m in enumerate(margins, start=1)
    ]
    return [*entries[:1], {"step": 1, "eval_entropy": 1.0}, *entries[1:]]


@pytest.fixture
def run(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, preferences=COUNTS)
    return run


def write_log(run) -> None:
    folder = run / "preferences" / "train" / "unified"
    folder.mkdir(parents=True)
    terms = [each for each in steps(*range(20)) if "loss" in each]
    entries = [each | extra for each, extra in zip(log(("dpo",)), terms, strict=True)]
    (folder / "log.json").write_text(json.dumps(entries))


def test_the_end_is_the_mean_of_the_last_tenth_of_the_steps():
    assert learned_terms(steps(*range(20))) == [LearnedTerm("dpo", -1.0, -19.5, 18.5, 0.9)]
    assert learned_terms(steps(0.0, 3.0)) == [LearnedTerm("dpo", -1.0, -4.0, 3.0, 0.9)]
    assert learned_terms([{"step": 1, "loss": 0.5}]) == learned_terms([]) == []
    assert learned_terms([dict.fromkeys(("loss", "dpo/margins", "dpo/chosen"))]) == []  # a step that was skipped


def test_the_page_counts_the_pairs_and_shows_the_first_of_each_domain_that_has_one(run):
    write_log(run)
    text, figures = render_page(read_run(run), resamples=50)
    page = text[text.index('<section id="preferences">') : text.index('<section id="cost">')]
    assert "learned from 1,024 pairs" in " ".join(page.split())
    assert page.count('<details class="answers"') == 1
    assert all(
        each in page for each in ("6 * 7 &lt;i&gt;?", "it is 42", "&lt;b&gt;41&lt;/b&gt;", "pivot+smol", "1,400")
    )
    assert "−19.500" in page
    assert 'href="#preferences"' in text
    assert "training preferences" in text  # a panel among the curves of training
    assert "training-loss" in figures


def test_without_its_log_the_page_says_that_it_is_left_out(run):
    text, _ = render_page(read_run(run), resamples=50)
    assert "Left out: there is no log of this training." in text


def test_a_run_without_preferences_has_no_such_section(tmp_path):
    text, _ = render_page(read_run(write_run(tmp_path / "run")), resamples=50)
    assert 'id="preferences"' not in text
    assert "pairs to find a right answer" not in model_card(tmp_path / "run", resamples=2)


def test_the_card_says_what_was_learned_last(run):
    words = "Last, it learned from 1,024 pairs to find a right answer likelier than a wrong one to the same prompt."
    assert words in " ".join(model_card(run, resamples=2).split())
