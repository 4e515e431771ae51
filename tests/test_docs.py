"""The page of methods names every method that there is; examples of pages are read as configurations; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

import fusion
from fusion import objectives, responses, transforms, weighting
from fusion.api import pages
from fusion.core.yaml_files import parse_yaml
from fusion.study import StudyGrid, load
from tests.helpers import runs

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    DOCS.parent / "README.md",
    DOCS.parent / "CONTRIBUTING.md",
    DOCS.parent / "examples/README.md",
]
PAGE = (DOCS / "methods.md").read_text()
SECTIONS = {
    "Terms": objectives.OBJECTIVES,
    "Changing a source's rows": transforms.TRANSFORMS,
    "Weightings": weighting.WEIGHTINGS,
}


@pytest.mark.parametrize("title", SECTIONS)
def test_each_table_has_a_row_for_every_kind(title):
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    kinds = [each.model_fields["kind"].default for each in SECTIONS[title]]
    assert sorted(rows) == sorted(kinds)
    assert len(rows) >= 4


def test_what_a_term_needs_is_what_its_row_says():
    for kind in objectives.OBJECTIVES:
        name = kind.model_fields["kind"].default
        given = {"expert": "a", "opposite": "b"} if name == "aligndistil" else {}
        needs, row = (
            kind(**given).required_source_fields,
            next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")),
        )
        cells = [cell.strip() for cell in row.split("|")]
        assert ("gold" in cells[4]) == ("gold" in needs)
        assert ("moments" in cells[4]) == ("mean" in needs)
        assert ("hidden states" in cells[4]) == ("hidden" in needs)
        assert ("all" in cells[4]) == (kind(**given).required_top_k is None)


def test_the_example_of_transforms_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```yaml\n(sources:.*?)```", PAGE, re.DOTALL)
    raw, given = runs.raw(tmp_path), yaml.safe_load(example)
    places = {"my/pivot": raw["pivot"]["path"], "some/coder": raw["sources"][0]["path"]}
    sources = [source | {"path": places[source["path"]]} for source in given["sources"]]
    config = runs.config(tmp_path, **given | {"sources": sources})
    assert [[each.kind for each in source.transforms] for source in config.sources] == [["logit_swap"], ["power"]]
    assert [factor.kind for factor in config.weighting.factors] == ["gold_posterior", "power_sum"]


def test_the_example_of_a_study_is_one(tmp_path):
    page = (Path(__file__).parent.parent / "docs/studies.md").read_text()
    (example,) = re.findall(r"```yaml\n(name: mine.*?)```", page, re.DOTALL)
    raw = yaml.safe_load(example)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw | {"base": "noisy_references"}))
    assert StudyGrid(load(tmp_path / "s.yaml"), ["evaluation.exact_match=[]"]).check() == 1 + 9 + 9


def test_the_example_of_a_source_that_looks_ahead_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```yaml\n(data:.*?)```", PAGE, re.DOTALL)
    given = yaml.safe_load(example)
    config = runs.config(tmp_path, sources=given["sources"], data=runs.raw(tmp_path)["data"] | given["data"])
    assert config.sources[0].look_ahead
    assert config.data.train[0].look_ahead == "{last_message}\n\nThe solution is {solution}. Explain it."


def test_the_example_of_continual_pre_training_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```yaml\n(pivot:.*?)```", PAGE, re.DOTALL)
    raw, given = runs.raw(tmp_path), yaml.safe_load(example)
    config = runs.config(tmp_path, **given | {"data": raw["data"] | given["data"]})
    assert [data.as_raw_text for data in config.data.train] == [False, True, True]


def test_the_examples_of_responses_are_a_configuration(tmp_path):
    page = (Path(__file__).parent.parent / "docs/responses.md").read_text()
    raw = runs.raw(tmp_path)
    raw["data"] |= yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["data"]
    found = runs.loading.parse(raw, "docs/responses.md").data
    assert (found.responses.kind, found.responses.samples) == ("best_source", 4)
    kinds = [found.responses.kind, *(data.check.kind for data in found.train)]
    assert kinds == ["best_source", "final_answer", "tests", "likelihood"]
    rows = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert {"reference", "best_source", "every_source"} < set(rows)
    assert {"ended", "final_answer", "tests", "agreement", "likelihood", "function"} < set(rows)


def test_the_example_of_answers_that_fit_is_a_configuration_and_its_table_has_each_preference(tmp_path):
    page = (DOCS / "responses.md").read_text().split("## Answers that fit the pivot\n")[1].split("\n## ")[0]
    raw = runs.raw(tmp_path)
    raw["data"] |= yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])["data"]
    assert runs.loading.parse(raw, "docs/responses.md").data.responses.prefer == "least_rsr"
    kinds = get_args(responses.BestSource.model_fields["prefer"].annotation)
    assert tuple(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)[1:]) == kinds


def test_the_example_of_a_function_as_a_check_judges_as_the_page_says(tmp_path):
    page = (DOCS / "responses.md").read_text().split("## A function of your own\n")[1]
    (tmp_path / "my_checks.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    raw, given = runs.raw(tmp_path), yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    raw["data"] |= {"responses": "best_source"}
    raw["data"]["train"] = [data | {"check": given["check"]} for data in raw["data"]["train"]]
    check = (
        runs.loading.parse(raw, "docs/responses.md")
        .data.train[0]
        .check.model_copy(update={"path": str(tmp_path / "my_checks.py")})
    )
    given = [responses.Response("a", text, ended=True) for text in ("so 42", "43")]
    assert check(fusion.Example((), "", "sums", columns={"answer": "42"}), given) == [True, False]


def test_the_example_of_rounds_is_a_configuration(tmp_path):
    page = (DOCS / "rounds.md").read_text()
    raw, given = runs.raw(tmp_path), parse_yaml(page.split("```yaml\n")[1].split("```")[0])
    rounds = runs.config(tmp_path, rounds=given["rounds"], data=raw["data"] | given["data"], evaluation={}).rounds
    assert (rounds.count, rounds.prompts, rounds.training["learning_rate"]) == (3, 256, 1e-5)
    table = page.split("| setting |")[1].split("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) | given["rounds"].keys()
    assert named == type(rounds).model_fields.keys()


def test_the_examples_of_eligibility_and_of_soft_labels_are_configurations(tmp_path):
    raw = runs.raw(tmp_path)
    (eligible,) = re.findall(r"```yaml\n(weighting:.*?)```", PAGE, re.DOTALL)
    (mix,) = re.findall(
        r"```yaml\n(objectives:\n  - {kind: cross_entropy, use_remaining_weight: true} .*?)```", PAGE, re.DOTALL
    )
    given = yaml.safe_load(eligible)
    config = runs.config(tmp_path, **given | {"data": raw["data"] | given["data"], "strategies": ["unified"]})
    assert config.weighting.required_eligibility
    assert [data.check.kind for data in config.data.train] == ["final_answer", "agreement"]
    given, recipe = yaml.safe_load(mix), runs.loading.load("confidence_mix")
    config = runs.config(tmp_path, **given)
    assert (config.weighting, config.objectives) == (recipe.weighting, recipe.objectives)


def test_the_example_of_preferences_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "preferences.md").read_text(), re.DOTALL)
    given = yaml.safe_load(example)
    config = runs.config(tmp_path, data=runs.raw(tmp_path)["data"] | given["data"], preferences=given["preferences"])
    assert [objective.kind for objective in config.preferences.objectives] == ["dpo", "cross_entropy"]
    assert config.preferences.training == {"learning_rate": 5e-7, "num_train_epochs": 1}


def test_the_example_of_two_answers_to_each_prompt_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```yaml\n(extract: {hidden.*?)```", PAGE, re.DOTALL)
    raw, given = runs.raw(tmp_path), yaml.safe_load(example)
    config = runs.config(tmp_path, **given | {"data": raw["data"] | given["data"]})
    assert config.objectives[-1].requirements.other_answers
    assert len({(data.path, data.prompt) for data in config.data.train}) == 1
    assert len({data.response for data in config.data.train}) == 2


def test_the_example_of_the_quickstart_page_is_a_configuration(tmp_path):
    page = (DOCS / "quickstart.md").read_text()
    (example,) = re.findall(r"```yaml\n(name: mine.*?)```", page, re.DOTALL)
    config = runs.loading.parse(yaml.safe_load(example), "docs/quickstart.md")
    assert [source.name for source in config.sources] == ["coder"]
    assert (config.strategies, config.training["learning_rate"]) == (["unified"], 2e-5)


def test_the_examples_of_the_readme_are_configurations():
    first, second = re.findall(r"```yaml\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL)
    raw = yaml.safe_load(first)
    config = runs.loading.parse(raw, "README.md")
    assert (config.data.responses.kind, config.weighting.kind) == ("best_source", "learned")
    answers_alone = yaml.safe_load(first) | {"objectives": [{"kind": "cross_entropy"}]}
    del answers_alone["weighting"], answers_alone["data"]["validation"]
    assert not runs.loading.parse(answers_alone, "README.md").reads_sources
    data = {"train": [{"path": "my/questions.jsonl", "domain": "facts"}], "heldout": raw["data"]["heldout"]}
    sources = [each for each in raw["sources"] if each["name"] != "itself"]
    config = runs.loading.parse(raw | {"data": data, "sources": sources} | yaml.safe_load(second), "README.md")
    assert [each.kind for each in config.objectives] == ["cross_entropy", "forward_kl"]


def test_the_page_of_the_api_is_what_the_docstrings_say():
    assert (DOCS / "api.md").read_text() == pages.page(), "run python -m fusion.api.pages --write docs/api.md"


def test_the_page_of_the_api_has_each_public_name_with_its_call_and_its_text():
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", pages.page(), re.MULTILINE | re.DOTALL))
    assert list(sections) == fusion.__all__
    assert [name for name, text in sections.items() if len(text.split()) < 10] == []
    assert "    top_k: int = 10,\n" in sections["extract"]
    assert "- `top_k`: Largest entries kept of each row." in sections["extract"]
    assert "- `pivot: Int[Tensor, ' M']`" in sections["Pairs"]


@pytest.mark.parametrize(("name", "at_least"), [("what_to_expect", 13), ("which_objective", 13), ("../README", 4)])
def test_every_interval_of_a_summary_stands_in_a_measured_table(name, at_least):
    measured = {pair for page in ("results", "methods", "performance") for pair in _intervals(page)}
    assert len(_intervals(name)) >= at_least
    assert _intervals(name) - measured == set()


def _intervals(page: str) -> set[tuple[str, ...]]:
    """Both ends of each `a to b` of a page, without signs: of what is lost a page may say by how much."""
    ends = re.findall(r"([\d.]+) to [+-]?([\d.]*\d)", (DOCS / f"{page}.md").read_text())
    return {tuple(sorted(pair)) for pair in ends}


def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there():
    broken = [f"{page.name}: {link}" for page in PAGES for link in _links(page.read_text()) if not _leads(page, link)]
    assert sum(len(_links(page.read_text())) for page in PAGES) > 100
    assert broken == []


def _links(text: str) -> list[str]:
    """Targets of the links of a page, those inside code left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def _leads(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in _anchors(target.read_text()))


def _anchors(text: str) -> set[str]:
    """Names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
