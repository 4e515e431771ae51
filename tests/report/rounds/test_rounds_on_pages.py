"""Rounds in the report, the model card and the terminal: which was kept and why, scores with intervals, answers."""

import json
import shutil
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from fusion.report.html_page import render_page
from fusion.report.model_card import model_card
from fusion.report.model_roles import explanations
from fusion.report.rounds import kept_sentence, round_rows, rounds_table
from fusion.report.run_contents import read_run
from fusion.report.sections import summary_tiles
from fusion.runtime.console import console
from fusion.runtime.run_file import RoundScore, RoundsFacts, RoundTexts, RunFile
from tests.helpers.browser import CHROMIUM, browser
from tests.helpers.report_runs import change, log, write_run


def score(domain, passed, sample="<b>42</b>", prompt="6 * 7 <i>?"):
    share = passed / 40
    return RoundScore(domain, 10, 4, share, min(1.0, 2 * share), 0.9, 12.5, sample, prompt, share > 0.5)


SCORES = [
    [score("sums", 10), score("dates", 20)],
    [score("sums", 30, "fine"), score("dates", 24)],
    [score("sums", 20), score("dates", 0)],
]


def facts(**changed):
    return RoundsFacts.model_validate({"kept": 1, "scores": SCORES, **changed})


def run_with(folder, rounds):
    """A finished run with these rounds, of which the second has a log."""
    run = write_run(folder / "run")
    for number in (1, 2):
        (run / "rounds" / str(number) / "train" / "unified").mkdir(parents=True)
        (run / "rounds" / str(number) / "train" / "unified" / "log.json").write_text(json.dumps(log(("reverse_kl",))))
    change(run, rounds=json.loads(rounds.model_dump_json()))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_with(tmp_path_factory.mktemp("rounds"), facts())


@pytest.fixture(scope="module")
def page(run):
    return render_page(read_run(run), resamples=50)


def printed(shown):
    with console.capture() as capture:
        console.print(shown, width=100)
    return capture.get()


def test_a_share_has_the_score_interval_over_prompts():
    row = next(row for row in round_rows(facts()) if (row.name, row.domain) == ("round 2", "sums"))
    expected = binomtest(5, 10).proportion_ci(method="wilson")
    assert row.pass_at_1.value == 0.5
    assert (row.pass_at_1.low, row.pass_at_1.high) == pytest.approx((expected.low, expected.high))


def test_the_mean_counts_domains_alike_and_stands_first():
    rows = round_rows(facts())
    assert [row.domain for row in rows] == ["mean"] * 3 + ["sums"] * 3 + ["dates"] * 3
    assert [row.pass_at_1.value for row in rows[:3]] == pytest.approx([0.375, 0.675, 0.25])
    widths = [rows[at].pass_at_1.half for at in (1, 4, 7)]
    assert widths[0] < min(widths[1:])
    assert [row.kept for row in rows] == [False, True, False] * 3


def test_one_domain_has_no_mean():
    alone = facts(scores=[[score("sums", 1)], [score("sums", 2)]])
    assert [row.domain for row in round_rows(alone)] == ["sums", "sums"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "Round 1 of 2 was kept: its answers to the validation prompts pass most often"),
        ({"kept": 0}, "The first training was kept: after no round"),
        ({"kept": 2, "keep": "last"}, "The last round, 2, was kept, as rounds.keep asks"),
        ({"kept": 2, "scores": [[], [], []]}, "The last round, 2, was kept: there are no validation examples"),
    ],
)
def test_which_round_was_kept_is_said_with_the_reason(changed, words, tmp_path):
    found = facts(**changed)
    assert kept_sentence(found).startswith(words)
    assert words in " ".join(printed(rounds_table(found)).split())
    assert words in " ".join(model_card(run_with(tmp_path, found), resamples=2).split())


def test_the_page_shows_scores_curves_and_escaped_answers(page):
    text, figures = page
    assert '<section id="rounds">' in text
    assert '<a href="#rounds">' in text
    assert "67.5%" in text
    assert "pass@4" in text
    assert "&lt;b&gt;42&lt;/b&gt;" in text
    assert "<b>42</b>" not in text
    assert "6 * 7 &lt;i&gt;?" in text
    assert "rounds-pass_at_1" in figures
    assert "training round 1" in text
    assert "training round 2" in text


def test_trainings_of_rounds_count_as_training(run):
    contents = read_run(run)
    stages = [{"name": "extract smol", "seconds": 10.0}, {"name": "round 1: train", "seconds": 30.0}]
    change(run, stages=stages)
    tiles = {label: note for label, _, note in summary_tiles(read_run(run), [])}
    change(run, stages=[stage.model_dump() for stage in contents.run.stages])
    assert tiles["wall time"] == "75% training"


def test_the_fused_model_is_explained_by_what_was_kept():
    def words(found, start="unified"):
        run = RunFile(name="a", created="2026-01-02", rounds=facts(kept=found, start=start), result="rounds")
        return dict(explanations(["rounds"], run))["rounds"]

    assert "and then one round in which it wrote" in words(1)
    assert "2 rounds followed, of which none was kept" in words(0)
    assert "merged into one model, and then 2 rounds" in words(2, "pairwise")


def test_what_nobody_read_is_not_said_to_be_read(tmp_path):
    alone = facts(kept=1).model_copy(update={"sources_read": False})
    run = RunFile(name="a", created="2026-01-02", rounds=alone, result="rounds", learns_predictions=False)
    said = dict(explanations(["rounds"], run))["rounds"]
    assert "on the texts alone, and then one round in which it wrote and learned from that" in said
    assert "sources" not in said
    card = " ".join(model_card(run_with(tmp_path, alone), resamples=2).split())
    assert "after that it wrote answers, and learned from how they were judged (2 rounds)." in card


def test_of_one_answer_to_each_prompt_there_is_one_share(run):
    single = [[replace(score, generations=1) for score in of] for of in facts().scores]
    few = facts().model_copy(update={"scores": single})
    assert printed(rounds_table(few)).count("pass@1") == 1
    before = read_run(run).run.rounds
    change(run, rounds=few.model_dump())
    text = render_page(read_run(run), resamples=2)[0]
    change(run, rounds=before.model_dump())
    assert text.count(">pass@1</th>") == 1


def test_a_run_without_rounds_says_nothing_of_them(tmp_path):
    run = write_run(tmp_path / "run", {})
    shutil.rmtree(run / "train")  # no curves, which take seconds
    text, figures = render_page(read_run(run), resamples=2)
    assert "rounds" not in text.lower().replace("background", "")
    assert "rounds-pass_at_1" not in figures
    assert "rounds" not in model_card(run, resamples=2)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
def test_the_section_fits_a_phone(page, tmp_path):
    (tmp_path / "report.html").write_text(page[0])
    with browser(tmp_path / "profile") as tab:
        for width in (390, 1280):
            tab.open(tmp_path / "report.html", width=width)
            assert tab.complaints == []
            assert tab.run("document.documentElement.scrollWidth") == width


def test_the_page_counts_what_was_written_to_training_prompts(tmp_path, page):
    texts = [[RoundTexts("sums", 5, 20, 12, 3, 2, 4), RoundTexts("dates", 4, 16, 0, 0, 1, 0)]]
    shown, *_ = render_page(read_run(run_with(tmp_path, facts(texts=texts))), resamples=50)
    for cell in ("25.0%", "of 12", "–"):
        assert cell in shown.partition("rewards differ</th>")[2].partition("</table>")[0]
    assert "rewards differ</th>" not in page[0], "of runs that did not count them"
