"""The page holds the numbers of `statistics`, asks nothing of the network, escapes what it shows, and says what is missing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_runs import DOMAINS, SKILL, change, result, run_json, write_run

from fusion.report.page import SAMPLES, duration, grouped, size, write_report
from fusion.report.record import helping_rows
from fusion.report.table import helping_cells
from fusion_eval.results import Result
from fusion_eval.statistics import METRICS, summarise

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Text of the page, its tables as rows of cells, every attribute, and whether all tags are closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.attributes, self.tags, self.rows, self.words = [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = (self.rows[-1][-1] + " " + data.strip()).strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(run: Path) -> Reader:
    return Reader(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The page of a run that lacks nothing."""
    return read(write_run(tmp_path_factory.mktemp("page") / "run"))


def test_the_tables_hold_the_numbers_of_the_results(full):
    rows = full.rows
    for metric, arrow in [("bits_per_byte", "↓"), ("exact_match", "↑")]:
        head = rows.index([f"{METRICS[metric].label} {arrow}", *DOMAINS, "mean"])
        for row, model in zip(rows[head + 1 :], SKILL, strict=False):
            found = [summarise(result(model))[domain][metric] for domain in (*DOMAINS, "mean")]
            show = METRICS[metric].show
            assert row[0] == model
            assert [cell.rstrip(" ★▼") for cell in row[1:]] == [f"{show(i.value)} ±{show(i.half)}" for i in found]
    assert rows[head + 1][-1].endswith("★")


def test_the_page_says_which_sources_help(full):
    rows = full.rows
    for row in helping_rows(run_json()["helping"]):
        assert helping_cells(row) in rows


def test_the_page_holds_models_data_times_settings_and_versions(full):
    assert ["smol", "source", "org/smol", "llama", "1.21M", "4,096", "apache-2.0", "9a02bd77e810"] in full.rows
    assert ["sums", "1,500", "40"] in full.rows
    assert ["train", "12 min 34 s", "95%"] in full.rows
    assert ["evaluate", "already there", ""] in full.rows
    assert ["stage", "time", "share of 13 min 16 s"] in full.rows
    assert "{kind: forward_kl, weight: 0.5}" in full.text
    assert "logit-fusion 0.1.0" in full.text


def test_the_headline_is_the_verdict(full):
    assert "unified is better than finetune on the mean over 3 domains of heldout." in full.text
    assert ("div", "class", "verdict better") in full.attributes


def test_a_model_worse_than_plain_fine_tuning_is_called_so(tmp_path):
    page = read(write_run(tmp_path / "run", SKILL | {"unified": 0.3}))
    assert "unified is worse than finetune" in page.text
    assert "better than" not in page.text


def test_answers_stand_side_by_side_the_first_of_each_domain(full):
    rows = full.rows
    for domain in DOMAINS:
        assert sum(row[0] == f"heldout · {domain}" for row in rows) == SAMPLES == 2
    start = rows.index(["heldout · sums", "Question 1 of sums: what is 1 + 1?"])
    items = {model: next(i for i in result(model).items if i.id == "sums-001") for model in SKILL}
    assert rows[start + 1] == ["expected", "2"]
    expected = [[f"{'✓' if item.exact else '✗'} {model}", item.answer] for model, item in items.items()]
    assert rows[start + 2 : start + 7] == expected


def test_the_page_asks_nothing_of_the_network(full):
    links = [value for _, name, value in full.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert all(value.startswith("#") for value in links)
    assert not {"script", "link", "img", "image", "iframe", "object"} & set(full.tags)
    styles = [value for _, name, value in full.attributes if name in ("style", "clip-path")] + full.words
    references = re.findall(r"url\(.", " ".join(styles))
    assert len(references) > 20  # clip paths of the figures
    assert set(references) == {"url(#"}
    assert "@import" not in full.text


def test_what_a_run_contains_cannot_become_part_of_the_page(tmp_path):
    run, bad = write_run(tmp_path / "run"), '</pre><script>alert("1")</script><img src="http://x.test/a">&amp;'
    one = result("unified")
    items = [one.items[0].model_copy(update={"prompt": bad, "answer": bad, "expected": bad, "domain": bad})]
    for model in SKILL:
        Result(model=model, suite=bad, path=bad, made={}, items=items).save(run / "eval" / model / "bad.json")
    change(run, name=bad, created=bad, versions={bad: bad}, stages=[{"name": bad, "seconds": 1}])
    change(run, helping=[run_json()["helping"][0] | {"source": bad, "domain": bad}])
    change(run, data={"train": {bad: 1}, "heldout": {}})
    change(run, models={bad: run_json()["models"]["smol"] | {"id": bad, "licence": bad, "fingerprint": bad}})
    (run / "config.yaml").write_text(bad)
    page = read(run)
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count(bad) > 15
    assert "<script" not in (run / "report.html").read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_page(tmp_path):
    pages = [write_report(write_run(tmp_path / name)).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_what_a_run_lacks_is_left_out_and_said(tmp_path, full):
    run = write_run(tmp_path / "run", {"unified": 0.8})
    change(run, **dict.fromkeys(["helping", "stages", "data", "models", "versions"]))
    text = read(run).text
    for said in (
        "run.json has no measurements of the sources.",
        "run.json has no stages.",
        "run.json has no counts of the data.",
        "run.json lists no models.",
        "run.json has no versions.",
        "the verdict on heldout; finetune, which run.json names as baseline, was not evaluated on it.",
    ):
        assert f"Left out: {said}" in text
    assert "Left out" not in full.text


def test_a_run_that_has_barely_begun_has_a_page_that_says_so(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "begun", "created": "today"}')
    text = read(tmp_path).text
    for said in ("no model of this run has been evaluated yet.", "there is no training log.", "no result has answers.",
                 "there is no config.yaml."):  # fmt: skip
        assert f"Left out: {said}" in text


def test_models_measured_on_different_items_are_refused_and_the_old_page_stays(tmp_path):
    run = write_run(tmp_path / "run")
    before = write_report(run).read_bytes()
    result("smol", n=39).save(run / "eval" / "smol" / "heldout.json")
    with pytest.raises(ValueError, match="smol against finetune on heldout: the items differ: 117 against 120"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (59.6, "1 min 0 s"), (754.2, "12 min 34 s"), (7625.0, "2 h 7 min")],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (812, "812"), (1_210_000, "1.21M"), (14_770_000_000, "14.8B")]
)
def test_sizes_have_three_digits(count, text):
    assert size(count) == text


def test_counts_have_their_thousands_apart():
    assert (grouped(151936), grouped(None)) == ("151,936", "–")
