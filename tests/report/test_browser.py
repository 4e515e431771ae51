"""The page in a real browser: it opens from disk, asks for nothing, complains of nothing, and what moves in it works."""

import re

import pytest

from fusion.report.html_page import write_report
from tests.helpers.browser import CHROMIUM, Browser, browser
from tests.helpers.report_runs import SKILL, result, write_run

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
    assert models == list(SKILL)
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
    '.verdict li', '.tiles dt', '.tiles small', '.token', '.token.empty', '.prompt', '.right pre', '.key', 'summary', '.theme'])
    for (const e of document.querySelectorAll(s)) {
      const under = layers(e), [a, b] = [light(rgb(...under, getComputedStyle(e).color)), light(rgb(...under))];
      const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      found[s] = Math.min(found[s] ?? 99, ratio);
    }
  return found;
})()"""


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
