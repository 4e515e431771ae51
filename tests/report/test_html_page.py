"""The page holds the numbers of `statistics`, names nothing outside itself, escapes what it shows, and says what is missing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fusion.report import html_page
from fusion.report.figures.run_figures import CURVES, figure_name
from fusion.report.html_page import TEMPLATES, render_page, write_report
from fusion.report.run_contents import helping_rows, read_run
from fusion.report.samples import MAX_CHARACTERS, shortened
from fusion.report.score_table import helping_cells
from fusion_eval.results import Result
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS
from tests.helpers.report_runs import DOMAINS, SKILL, change, result, run_json, write_run

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Text of the page, its tables as rows of cells, every attribute, and whether all tags are closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.attributes, self.tags, self.rows, self.words, self.tokens = [], [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if ("class", "token") in attrs or any(name == "class" and value.startswith("token ") for name, value in attrs):
            self.tokens.append(attrs)
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
        if not {"script", "style"} & set(self.open):
            self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = (self.rows[-1][-1] + " " + data.strip()).strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(run: Path, resamples: int = 100) -> Reader:
    return Reader(render_page(read_run(run), resamples=resamples)[0])


def words(run: Path) -> Reader:
    """The page without its figures, which take most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_page, "run_figures", lambda *_, **__: {})
        return read(run)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that lacks nothing, with the files beside it."""
    return write_report(write_run(tmp_path_factory.mktemp("page") / "run"), resamples=RESAMPLES)


@pytest.fixture(scope="module")
def full(written: Path) -> Reader:
    """That page."""
    return Reader(written.read_text(encoding="utf-8"))


def test_the_tables_hold_the_numbers_of_the_results(full):
    rows = full.rows
    for metric, arrow in [("bits_per_byte", "↓"), ("exact_match", "↑")]:
        head = rows.index([f"{METRICS[metric].label} {arrow}", *(f"domain {domain}" for domain in DOMAINS), "mean"])
        for row, model in zip(rows[head + 1 :], SKILL, strict=False):
            found = [summarise(result(model))[domain][metric] for domain in (*DOMAINS, "mean")]
            show, spread = METRICS[metric].show, METRICS[metric].show_spread
            assert row[0].split()[0] == model
            assert [cell.rstrip(" ★▼") for cell in row[1:]] == [f"{show(i.value)} {spread(i)}" for i in found]
    assert rows[head + 1][-1].endswith("★")


def test_the_page_says_which_sources_help(full):
    rows = full.rows
    for row in helping_rows(run_json()["helping"]):
        source, *cells = helping_cells(row)
        assert [f"{source} source", *(cell.replace("-0", "−0") for cell in cells)] in rows


def test_the_page_holds_models_data_times_settings_and_versions(full):
    assert ["smol", "source", "org/smol", "llama", "1.21M", "4,096", "apache-2.0", "9a02bd77e810"] in full.rows
    assert ["sums", "1,500", "40", "8"] in full.rows
    assert ["stage", "tokens", "steps", "FLOPs", "time", "share of 13 min 16 s"] in full.rows
    assert ["train", "630K", "420", "4.6 TFLOP", "12 min 34 s", "95%"] in full.rows
    assert ["evaluate", "–", "–", "–", "0.0 s", "0%"] in full.rows
    assert ["smol source", "29,000", "10", "1.13 MB", "39.0"] in full.rows
    assert "{kind: forward_kl, weight: 0.5}" in full.text
    assert "logit-fusion 0.1.0" in full.text
    assert "what a stage took when it was done, on 2 cores of Some CPU." in full.text


def test_the_headline_is_the_verdict(full):
    assert "unified is better than finetune on the mean over 3 domains of heldout." in full.text
    assert ("div", "class", "verdict better") in full.attributes


def test_a_model_worse_than_plain_fine_tuning_is_called_so(tmp_path):
    text = words(write_run(tmp_path / "run", SKILL | {"unified": 0.3})).text
    assert "unified is worse than finetune" in text
    assert "unified is better" not in text


def test_answers_of_fused_fine_tuned_pivot_and_best_source_stand_side_by_side(full):
    items = {model: {i.id: i for i in result(model).samples if i.domain == "sums"} for model in SKILL}
    best = max(("smol", "tiny-llama"), key=lambda model: sum(i.exact_match for i in items[model].values()))
    shown = ["unified", "finetune", "pivot", best]
    wins = [id for id in items["unified"] if items["unified"][id].exact_match]
    won = max(wins, key=lambda id: sum(not items[m][id].exact_match for m in shown[1:]))  # the first of equals
    roles = dict(zip(shown, (" fused", " fine-tuned", "", " source"), strict=True))
    replies = [f"{m}{roles[m]} {'✓' if items[m][won].exact_match else '✗'} {items[m][won].answer}" for m in shown]
    sample = items["unified"][won]
    said = f"unified is right where others are wrong prompt {sample.prompt} expected {sample.target}"
    assert f"{said} {' '.join(replies)}" in full.text
    assert "unified is wrong prompt Question" in full.text


def test_each_name_is_explained_where_it_first_appears_and_before_it_is_measured(full):
    for name, words in [
        ("unified", "one training on the texts"),
        ("finetune", "without any source"),
        ("pivot", "untouched"),
    ]:
        assert 0 < full.text.index(f"{name} the ") < full.text.index("Result: heldout")
        assert words in full.text
    assert "smol, tiny-llama the sources" in full.text


def test_a_source_named_like_a_domain_is_told_apart_in_tables_and_figures(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "eval" / "smol").rename(run / "eval" / "sums")
    file = run / "eval" / "sums" / "heldout.json"
    file.write_text(file.read_text().replace('"model": "smol"', '"model": "sums"'))
    facts = run_json()["models"]
    change(run, models={"pivot": facts["pivot"], "sums": facts["smol"]})
    page = read(run)
    heads = {cell for row in page.rows for cell in row[:1]}
    assert {"sums source", "domain sums"} <= heads
    _, _, rest = page.text.partition("bits per byte, lower is better")
    assert "domain sums" in rest[:400]
    assert "sums (source)" in rest[:400]


def test_curves_of_gradient_norm_entropy_and_calibration_are_on_the_page(full):
    heads = [
        "Loss and its terms",
        "Norm of the gradient",
        "Entropy of the model's predictions",
        "Confidence and accuracy",
    ]
    places = [full.text.index(head) for head in heads]
    assert places == sorted(places)


def test_curves_on_validation_examples_come_before_those_of_training_and_say_what_they_were_read_on(full):
    heads = ["On validation examples", "Bits per byte, lower is better", "Token accuracy, %, higher is better"]
    heads += ["Calibration error, %, lower is better", "Entropy, nats", "Loss and its terms"]
    _, _, training = full.text.partition("On validation examples")
    places = [("On validation examples" + training).index(head) for head in heads]
    assert places == sorted(places)
    assert "24 validation examples (8 of dates, 8 of lists, 8 of sums)" in full.text
    assert "The point at step 0 is the model before its training." in full.text


def test_a_run_without_validation_examples_says_what_would_draw_them(tmp_path):
    run = write_run(tmp_path / "run")
    for file in (run / "train").rglob("log.json"):
        steps = [entry for entry in json.loads(file.read_text()) if "loss" in entry]
        file.write_text(json.dumps(steps))
    page = read(run)
    assert "On validation examples" not in page.text
    assert "curves on validation examples: give data.validation data sets" in page.text


def test_a_fall_below_the_pivot_is_in_the_verdict_of_the_page(tmp_path):
    run = write_run(tmp_path / "run")
    one = result("pivot")
    best = {item.id: item for item in result("pivot", 1.0).samples}
    samples = [best[item.id] if item.domain == "sums" else item for item in one.samples]
    one.model_copy(update={"samples": samples}).save(run / "eval" / "pivot" / "heldout.json")
    page = words(run)
    assert (
        "better than finetune on the mean over 3 domains of heldout, but worse than the untouched pivot in domain sums."
        in page.text
    )
    assert ("div", "class", "verdict better below-pivot") in page.attributes


def test_a_long_answer_is_shortened_and_says_by_how_much():
    assert shortened("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert shortened("x" * (MAX_CHARACTERS + 1234)) == "x" * MAX_CHARACTERS + " … (1,234 more characters)"


def test_gains_and_losses_stand_beside_the_gap(full):
    head = next(i for i, row in enumerate(full.rows) if row[:1] == ["unified less …"])
    assert full.rows[head][1:] == ["pivot", "finetune", "best source", "gap closed"]
    ours, plain = (summarise(result(model))["sums"]["bits_per_byte"].value for model in ("unified", "finetune"))
    row = next(row for row in full.rows[head:] if row[0] == "domain sums")
    assert row[2].startswith(f"{ours - plain:+.3f}".replace("-", "−"))
    assert row[3].endswith("smol source , itself no better than finetune")
    assert "No regression is shown" in full.text


def test_a_regression_is_named_with_its_domain(tmp_path):
    text = words(write_run(tmp_path / "run", SKILL | {"unified": 0.0, "pivot": 0.5})).text
    everywhere = "in domains dates, lists, sums"
    assert f"▼ Where it got worse than pivot {everywhere} than finetune {everywhere}" in text
    assert "No regression" not in text


def test_every_token_stands_once_in_each_pair_of_lanes(full):
    tokens = [dict(attributes) for attributes in full.tokens]
    assert len(tokens) == len(DOMAINS) * ((4 + 4) + (4 + 3))
    assert "2 of 4 matched" not in full.text
    assert full.text.count("3 of 4 matched") == 2 * len(DOMAINS)
    assert [t["style"] for t in tokens[:2]] == ["--p: 0.9", "--p: 0.5"]
    assert [t.get("data-partner") for t in tokens if t["data-lane"] == "smol"][:4] == ["0", "2", None, "3"]


def test_the_figures_lie_beside_the_page(tmp_path):
    run = write_run(tmp_path / "run", SKILL | {"finetune": 0.2})
    (run / "report").mkdir()
    (run / "report" / "old.png").write_bytes(b"")
    write_report(run, resamples=100)
    expected = {
        figure_name("heldout", metric, kind) for metric in ("bits_per_byte", "exact_match") for kind in ("bars", "gap")
    }
    expected |= {"heldout-exact_match-radar", "helping"} | {f"training-{key}" for key in CURVES}
    expected |= {
        f"validation-{key}" for key in ("bits_per_byte", "mean_token_accuracy", "calibration_error", "entropy")
    }
    assert {file.stem for file in (run / "report").iterdir()} == expected
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (run / "report").iterdir())


def test_suites_that_differ_only_in_odd_letters_share_no_file():
    names = [figure_name(suite, "exact_match", "bars") for suite in ("a b", "a/b", "a-b", "../a b", "")]
    assert len(set(names)) == 5
    assert names[2] == "a-b-exact_match-bars"
    assert not any("/" in name or name.startswith(".") for name in names)


def test_the_page_asks_nothing_of_the_network(full):
    links = [value for _, name, value in full.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert all(value.startswith("#") for value in links)
    assert not {"link", "img", "image", "iframe", "object"} & set(full.tags)
    assert full.tags.count("script") == 2  # what the caches hold as JSON, and what the page does with it
    assert ("script", "type", "application/json") in full.attributes
    assert not re.search(r"https?:|fetch|import|XMLHttp", (TEMPLATES / "page.js").read_text(encoding="utf-8"))
    styles = [value for _, name, value in full.attributes if name in ("style", "clip-path")] + full.words
    references = re.findall(r"url\(.", " ".join(styles))
    assert len(references) > 20  # clip paths of the figures
    assert set(references) == {"url(#"}
    assert "@import" not in full.text


def test_what_a_run_contains_cannot_become_part_of_the_page(tmp_path):
    run, bad = write_run(tmp_path / "run"), '</pre><script>alert("1")</script><img src="http://x.test/a">&amp;'
    one = result("unified")
    items = [one.samples[0].model_copy(update={"prompt": bad, "answer": bad, "target": bad, "domain": bad})]
    for model in SKILL:
        Result(model=model, suite=bad, path=bad, provenance={}, samples=items).save(run / "eval" / model / "bad.json")
    change(run, name=bad, created=bad, versions={bad: bad}, stages=[{"name": bad, "seconds": 1}])
    change(run, helping=[run_json()["helping"][0] | {"source": bad, "domain": bad}])
    change(run, data={"train": {bad: 1}, "heldout": {}})
    change(run, models={bad: run_json()["models"]["smol"] | {"id": bad, "license": bad, "fingerprint": bad}})
    lane = [{"start": 0, "end": 1, "text": bad, "gold": 1.0, "top": [[bad, 0.5]]}]
    odd = {
        "domain": bad,
        "prompt": bad,
        "response": bad,
        "positions": {"pivot": lane, bad: lane},
        "pairs": {bad: [[0, 0]]},
    }
    (run / "alignment.json").write_text(json.dumps([odd]))
    (run / "config.yaml").write_text(bad)
    text, _ = render_page(read_run(run), resamples=100)
    found = Reader(text)
    assert "img" not in found.tags
    assert found.tags.count("script") == text.count("<script") == 2
    assert found.text.count(bad) > 15


def test_the_same_run_gives_the_same_page(written, tmp_path):
    pages = [written, write_report(write_run(tmp_path / "again"), resamples=RESAMPLES)]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    images = [{file.name: file.read_bytes() for file in (page.parent / "report").iterdir()} for page in pages]
    assert len(images[0]) > 10
    assert images[0] == images[1]


def test_what_a_run_lacks_is_left_out_and_said(tmp_path, full):
    run = write_run(tmp_path / "run", {"unified": 0.8})
    change(run, **dict.fromkeys(["helping", "stages", "data", "models", "versions", "caches"]))
    (run / "alignment.json").unlink()
    text = words(run).text
    for said in (
        "run.json has no measurements of the sources.",
        "run.json has no stages.",
        "run.json has no counts of the data.",
        "run.json lists no models.",
        "run.json has no versions.",
        "run.json has no sizes of caches.",
        "there is no alignment.json; the caches are not complete.",
        "there is no fused model with others to compare it with.",
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
    (run / "report.html").write_bytes(before := b"the old page")
    result("smol", n=39).save(run / "eval" / "smol" / "heldout.json")
    with pytest.raises(ValueError, match="unified against smol on heldout: the samples differ: 120 against 117"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
