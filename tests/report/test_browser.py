"""The page in a real browser: it opens from disk, asks for nothing, complains of nothing, and what moves in it works."""

import json
import re

import pytest

from fusion.report.html_page import write_report
from tests.helpers.browser import CHROMIUM, Browser, browser
from tests.helpers.report_runs import SKILL, change, result, write_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
SCRIPTS = "[...document.querySelectorAll('%s')].map(e => e.textContent.trim())"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(write_run(tmp_path_factory.mktemp("run") / "run"), resamples=100)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def opened(tab: Browser, page) -> Browser:
    """The page, freshly loaded."""
    tab.requests.clear()
    tab.complaints.clear()
    tab.open(page)
    return tab


def column(tab: Browser, table: str, number: int) -> list[str]:
    return tab.run(SCRIPTS % f"{table} tbody tr > :nth-child({number})")


def background(tab: Browser) -> str:
    return tab.run("getComputedStyle(document.body).backgroundColor")


def test_the_page_opens_from_disk_and_asks_for_nothing_else(opened, page):
    assert opened.requests == [page.resolve().as_uri()]
    assert opened.complaints == []
    assert opened.run("document.title") == "three-skills – fusion report"


def test_a_complaint_or_a_request_would_be_seen(opened):
    opened.run("console.error('seen')")
    opened.run("fetch('http://localhost:9/').catch(() => 0)")
    assert any("seen" in complaint for complaint in opened.complaints)
    assert opened.requests[1:] == ["http://localhost:9/"]


def test_pointing_at_a_token_shows_what_both_models_expected(opened):
    peek = "document.getElementById('peek')"
    assert opened.run(f"{peek}.hidden")
    opened.point(".overlay[data-source=smol] .token[data-lane=pivot][data-at='2']")
    assert not opened.run(f"{peek}.hidden")
    assert opened.run(SCRIPTS % "#peek h4") == ["pivot", "smol"]
    rows = [re.sub(r"\s+", " ", row) for row in opened.run(SCRIPTS % "#peek .row")]
    assert rows == ["·cd20.0%", "x40.0%", "everything else40.0%", "·c60.0%", "x20.0%", "everything else20.0%"]
    assert opened.run(SCRIPTS % "#peek .row.true") == ["·cd20.0%", "·c60.0%"]
    assert opened.run(SCRIPTS % "#peek .before") == ["·ab▏·cd"]
    assert opened.run(SCRIPTS % ".token.on") == ["·cd", "·c"]
    opened.point("h1")
    assert opened.run(f"{peek}.hidden")
    assert opened.run(SCRIPTS % ".token.on") == []


def test_a_token_without_a_partner_says_so(opened):
    opened.point(".overlay[data-source=smol] .token[data-lane=smol][data-at='2']")
    assert opened.run(SCRIPTS % "#peek h4") == ["smol"]
    assert opened.run(SCRIPTS % "#peek .note") == ["No position of pivot begins here, so nothing is compared."]


def test_the_keyboard_reaches_tokens_and_escape_closes_what_they_show(opened):
    opened.run("document.querySelector('.token').focus()")
    opened.key("Tab")
    assert opened.run("document.activeElement.dataset.at") == "1"
    assert opened.run(SCRIPTS % "#peek h4") == ["pivot"]
    opened.key("Escape")
    assert opened.run("document.getElementById('peek').hidden")


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_shown_lies_in_the_window_and_the_page_is_never_wider_than_it(tab, page, width):
    tab.open(page, width=width)
    assert tab.run("document.documentElement.scrollWidth") == width
    for token in (".overlay .token", ".overlay:last-of-type .block:last-child .token"):
        tab.point(token)
        left, right = tab.run("(b => [b.left, b.right])(document.getElementById('peek').getBoundingClientRect())")
        assert left >= 0
        assert right <= width


def test_a_table_is_sorted_by_the_column_that_is_pressed_and_numbers_are_numbers(opened):
    table = "#result h2 + .wide table"
    models = column(opened, table, 1)
    assert [model.split()[0] for model in models] == list(SKILL)
    opened.click(f"{table} th:last-child button")
    values = [float(text.split()[0]) for text in column(opened, table, 5)]
    assert values == sorted(values)
    assert opened.run(f"document.querySelector('{table} th:last-child').ariaSort") == "ascending"
    opened.click(f"{table} th:last-child button")
    assert [float(text.split()[0]) for text in column(opened, table, 5)] == values[::-1]
    opened.click(f"{table} th:first-child button")
    assert column(opened, table, 1) == sorted(models)


def test_sizes_are_sorted_by_what_they_stand_for(opened):
    opened.click("#models .wide:last-of-type th:nth-child(4) button")
    assert column(opened, "#models .wide:last-of-type table", 4) == ["570 kB", "1.13 MB", "1.56 MB"]


def test_the_page_follows_the_system_and_the_switch_overrules_it(tab, page):
    tab.open(page)
    light = background(tab)
    tab.open(page, dark=True)
    dark = background(tab)
    assert light != dark
    tab.click(".theme")
    assert background(tab) == light
    tab.click(".theme")
    assert background(tab) == dark
    tab.open(page)
    assert background(tab) == dark  # the choice is kept
    tab.click(".theme")
    assert background(tab) == light
    assert tab.run("document.documentElement.dataset.theme") is None


def test_figures_take_the_colour_of_the_text(tab, page):
    for dark in (False, True):
        tab.open(page, dark=dark)
        colours = tab.run(
            "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
        assert colours[0] == colours[1]


def test_words_can_be_read_on_their_background_in_light_and_dark(tab, page):
    for dark in (False, True):
        tab.open(page, dark=dark)
        pairs = tab.run(CONTRASTS)
        assert len(pairs) > 10
        assert {name: ratio for name, ratio in pairs.items() if ratio < 4.5} == {}


CONTRASTS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (...layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of layers) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (data) => [0, 1, 2].map((i) => data[i] / 255)
    .map((v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const layers = (e) => (e ? [...layers(e.parentElement), getComputedStyle(e).backgroundColor] : ['#fff']);
  const found = {};
  for (const s of ['h1', 'p', '.note', '.lead', 'nav a', 'thead th', 'tbody td', '.spread', '.mark.good', 'td.good', 'td.bad',
    '.verdict li', '.tiles dt', '.tiles small', '.token', '.token.empty', '.prompt', '.right pre', '.key', 'summary', '.theme',
    '.kind', '.words dd', '.sample-kind'])
    for (const e of document.querySelectorAll(s)) {
      const under = layers(e), [a, b] = [light(rgb(...under, getComputedStyle(e).color)), light(rgb(...under))];
      const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      found[s] = Math.min(found[s] ?? 99, ratio);
    }
  return found;
})()"""


WIDTHS = pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """A page of long names, values near 0, a gap far beyond the edge, and data sets that were read with a lot to say."""
    run = write_run(tmp_path_factory.mktemp("hard") / "run", SKILL | {"finetune": 0.32, "pivot": 0.02})
    old, new = "tiny-llama", "An-Organisation-Model-2.5-Coder-0.5B-Instruct-distilled"
    for file in run.rglob("*.json"):
        file.write_text(file.read_text().replace(old, new).replace("dates", "college_computer_science_and_logic"))
    (run / "eval" / old).rename(run / "eval" / new)
    results = run / "eval" / "smol" / "heldout.json"
    facts = json.loads(results.read_text())
    for sample in facts["samples"]:
        sample["nll"] = 0.0001
    results.write_text(json.dumps(facts))
    left = [
        {
            "reason": "the answer is empty",
            "count": 12,
            "first": "row 17 of a/very/long/path/to/a/file/of/questions.jsonl",
        }
    ]
    sets = [
        {"part": "training", "path": "org/a-data-set-with-a-long-name-of-questions", "examples": 1500,
         "reading": "prompt from question, response from answer, system from the template of the pivot", "left_out": left,
         "unused": ["id", "source_of_the_question", "difficulty"]}
    ] * 2  # fmt: skip
    change(run, data=json.loads((run / "run.json").read_text())["data"] | {"sets": sets})
    return write_report(run, resamples=100)


@WIDTHS
def test_the_page_is_as_wide_as_the_window_and_what_is_wider_scrolls_in_its_box(tab, page, hard, width, dark):
    for file in (page, hard):
        tab.open(file, width=width, dark=dark)
        assert tab.run("document.documentElement.scrollWidth") == width
        assert tab.run(OUTSIDE) == []


OUTSIDE = """[...document.querySelectorAll('main *')].filter((e) => e.checkVisibility() && !e.closest('.wide, svg, pre'))
  .filter((e) => { const b = e.getBoundingClientRect(); return b.left < -0.5 || b.right > innerWidth + 0.5; })
  .map((e) => e.outerHTML.slice(0, 80))"""


@WIDTHS
def test_no_text_of_a_figure_is_cut_or_too_small_to_read(tab, page, hard, width, dark):
    for file in (page, hard):
        tab.open(file, width=width, dark=dark)
        assert (
            tab.run("[...document.querySelectorAll('figure')].filter((e) => e.scrollWidth > e.clientWidth).length") == 0
        )
        found = tab.run(FIGURE_TEXTS)
        assert len(found) > 60
        assert [text for text, inside, _ in found if not inside] == []
        assert min(height for _, _, height in found) >= 8


FIGURE_TEXTS = """[...document.querySelectorAll('figure svg text')].filter((e) => e.checkVisibility()).map((e) => {
  const t = e.getBoundingClientRect(), s = e.closest('svg').getBoundingClientRect(), slack = 1;
  const across = t.left >= s.left - slack && t.right <= s.right + slack;
  return [e.textContent, across && t.top >= s.top - slack && t.bottom <= s.bottom + slack, t.height];
})"""


@WIDTHS
def test_every_bar_can_be_seen_and_stands_before_its_number(tab, page, hard, width, dark):
    for file in (page, hard):
        tab.open(file, width=width, dark=dark)
        bars = tab.run(BARS)
        assert len(bars) > 30
        assert [bar for bar in bars if bar["width"] < 1.2 or bar["height"] < 4] == []
    numbers = tab.run("[...document.querySelectorAll('figure svg text')].map((e) => e.textContent)")
    assert "0.000" in numbers


BARS = """[...document.querySelectorAll('figure svg g[id*="bar-"] path')].filter((e) => e.checkVisibility())
  .map((e) => ({id: e.parentElement.id, width: e.getBoundingClientRect().width, height: e.getBoundingClientRect().height}))"""


@WIDTHS
def test_tiles_fill_their_rows(tab, page, hard, width, dark):
    for file in (page, hard):
        tab.open(file, width=width, dark=dark)
        for count in range(tab.run("document.querySelectorAll('.tiles > div').length"), 0, -1):
            left, right, rows = tab.run(TILES)
            assert sum(row[2] for row in rows) == count
            for row in rows:
                assert row[0] == pytest.approx(left, abs=1.5)
                assert row[1] == pytest.approx(right, abs=1.5)
            tab.run("document.querySelector('.tiles > div:last-child').remove()")


TILES = """(() => {
  const box = document.querySelector('.tiles').getBoundingClientRect(), rows = {};
  for (const tile of document.querySelectorAll('.tiles > div')) {
    const b = tile.getBoundingClientRect(), row = (rows[Math.round(b.top)] ??= [b.left, b.right, 0]);
    row[0] = Math.min(row[0], b.left); row[1] = Math.max(row[1], b.right); row[2] += 1;
  }
  return [box.left, box.right, Object.values(rows)];
})()"""


def test_a_share_beyond_the_edge_is_drawn_with_its_number(tab, hard):
    tab.open(hard)
    texts = tab.run("[...document.querySelectorAll('[id$=gap] svg text')].map((e) => e.textContent)")
    assert [text for text in texts if re.fullmatch(r"−\d{3,}%", text)]


def test_the_table_of_data_sets_is_read_on_a_phone_without_scrolling(tab, hard):
    tab.open(hard, width=390)
    table = "document.querySelector('table.stacked')"
    assert tab.run(f"{table}.parentElement.scrollWidth <= {table}.parentElement.clientWidth")
    heads = tab.run(
        f"[...{table}.querySelectorAll('tr:first-child td')].map((e) => getComputedStyle(e, '::before').content)"
    )
    assert [re.findall(r'"(.*?): ?"', head)[0] for head in heads] == ["for", "examples", "read", "left out", "not used"]
    right = tab.run(f"Math.max(...[...{table}.querySelectorAll('th, td')].map((e) => e.getBoundingClientRect().right))")
    assert right <= 390
    narrowest = tab.run(f"Math.min(...[...{table}.querySelectorAll('th, td')].map((e) => e.getBoundingClientRect().width)"
                        ".filter((width) => width > 0))")  # fmt: skip
    assert narrowest > 250  # each cell has a line of its own


@pytest.mark.parametrize(("width", "shown"), [(390, "for-phone"), (1280, "for-page")])
def test_one_drawing_of_each_figure_is_shown(tab, page, width, shown):
    tab.open(page, width=width)
    visible = "[...f.children].filter((e) => e.checkVisibility()).map((e) => e.className)"
    figures = tab.run(f"[...document.querySelectorAll('figure')].map((f) => {visible})")
    assert len(figures) > 8
    assert figures == [[shown]] * len(figures)


def test_the_page_prints_on_white_without_contents_and_switch(tab, page):
    tab.open(page, dark=True, media="print")
    assert background(tab) == "rgb(255, 255, 255)"
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.pdf().startswith(b"%PDF")


def test_a_page_that_has_barely_begun_complains_of_nothing(tab, tmp_path):
    (tmp_path / "run.json").write_text('{"name": "begun", "created": "today"}')
    tab.complaints.clear()
    tab.open(write_report(tmp_path))
    assert tab.complaints == []


def test_what_a_run_contains_is_never_run(tab, tmp_path):
    run, bad = (
        write_run(tmp_path / "run"),
        "</script><img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>",
    )
    for file in [run / "alignment.json", run / "run.json"]:
        text = file.read_text().replace("a question of", bad.replace('"', "'")).replace('" ab"', f'"{bad}"')
        file.write_text(text.replace("three-skills", bad))
    one = result("unified")
    items = [one.samples[0].model_copy(update={"prompt": bad, "answer": bad}), *one.samples[1:]]
    for model in SKILL:
        one.model_copy(update={"model": model, "samples": items}).save(run / "eval" / model / "heldout.json")
    tab.complaints.clear()
    tab.open(write_report(run, resamples=100))
    tab.point(".overlay[data-source=smol] .token[data-lane=smol]")
    assert bad.split(">")[0] in tab.run("document.getElementById('peek').textContent")
    assert tab.run("window.hacked") is None
    assert tab.complaints == []
