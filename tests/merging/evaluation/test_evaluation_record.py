"""What the merged folder says of its evaluation: evaluation.json, and the sections of its card."""

import json
from dataclasses import replace

from fusion.merging.evaluation.evaluated_models import EvaluatedModel
from fusion.merging.evaluation.evaluation_record import with_section, write_evaluation
from fusion.merging.evaluation.merge_evaluation import WORST_DOMAIN_HEADS, MergeEvaluation
from fusion_eval.statistics.comparison import compare, summarise
from tests.helpers.measured_results import result, sample, some_samples

ROLES = {"base": "base", "a": "input", "b": "input", "merged": "merged"}


def evaluation(suite="heldout", shifts=(0.5, 0.1, 0.4, 0.3)):
    results = [
        result(name, some_samples(1, shift=shift) + some_samples(2, domain="words", shift=1 - shift), suite)
        for name, shift in zip(ROLES, shifts, strict=True)
    ]
    results = [each.model_copy(update={"provenance": {"key": {"examples": "e"}}}) for each in results]
    models = [EvaluatedModel(name, "input", f"/models/{name}") for name in ROLES]
    models = [replace(model, role=ROLES[model.name]) for model in models]
    return MergeEvaluation(models, results)


def test_the_figures_are_those_of_the_statistics_with_the_worst_domain_named(tmp_path):
    (tmp_path / "README.md").write_text("# merged\n")
    found = evaluation()
    write_evaluation(tmp_path, found, data=[{"path": "dev.jsonl"}], table="the table")
    written = json.loads((tmp_path / "evaluation.json").read_text())["heldout"]
    assert written["data"] == [{"path": "dev.jsonl"}]
    assert [(model["name"], model["role"]) for model in written["models"]] == list(ROLES.items())
    scores = summarise(found.merged)["sums"]["bits_per_byte"]
    expected = {"value": scores.value, "low": scores.low, "high": scores.high, "n": 30}
    assert written["models"][-1]["scores"]["sums"]["bits_per_byte"] == expected
    less_base = written["merged_less"]["the base"]["bits_per_byte"]
    assert less_base["worst_domain"] == "words"
    assert less_base["mean"]["value"] == compare(found.merged, found.results[0])["mean"]["bits_per_byte"].value
    less_input = written["merged_less"]["the best input"]["bits_per_byte"]["domains"]
    assert {domain: each["other"] for domain, each in less_input.items()} == {"sums": "a", "words": "b"}


def test_every_comparison_is_a_row_with_as_many_cells_as_there_are_heads():
    rows = evaluation().worst_domains()
    assert [row[:2] for row in rows] == [
        ["bits per byte", "the base"], ["bits per byte", "the best input"],
        ["exact match %", "the base"], ["exact match %", "the best input"],
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(WORST_DOMAIN_HEADS)}
    assert rows[0][3:] == ["words", rows[0][4]]
    assert rows[0][4].endswith("▼")


def test_one_example_has_no_interval_and_is_written_all_the_same(tmp_path):
    models = [EvaluatedModel("base", "base", "b"), EvaluatedModel("merged", "merged", "m")]
    results = [result(name, [sample("x", nll)]) for name, nll in (("base", 1.0), ("merged", 2.0))]
    results = [each.model_copy(update={"provenance": {"key": {}}}) for each in results]
    write_evaluation(tmp_path, MergeEvaluation(models, results), data=[], table="t")
    text = (tmp_path / "evaluation.json").read_text()
    assert "Infinity" not in text
    interval = json.loads(text)["heldout"]["merged_less"]["the base"]["bits_per_byte"]["mean"]
    assert (interval["low"], interval["n"]) == (None, 1)


def test_another_suite_is_added_and_the_same_one_replaced_in_file_and_card(tmp_path):
    (tmp_path / "README.md").write_text("---\ntags: [merge]\n---\n# merged\n\nwords\n")
    write_evaluation(tmp_path, evaluation(), data=[], table="first | \\1 table")
    write_evaluation(tmp_path, evaluation("quick"), data=[], table="of quick")
    write_evaluation(tmp_path, evaluation(), data=["again"], table="second \\1 table")
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert (list(written), written["heldout"]["data"]) == (["heldout", "quick"], ["again"])
    assert (tmp_path / "README.md").read_text() == (
        "---\ntags: [merge]\n---\n# merged\n\nwords\n\n## Evaluation: heldout\n\nsecond \\1 table\n\n"
        "## Evaluation: quick\n\nof quick\n"
    )


def test_a_section_ends_where_the_next_of_its_rank_begins():
    card = "# m\n\n## Evaluation: a.b\n\nold\n\n### inside\n\n## License\n\nmine\n"
    assert with_section(card, "Evaluation: a.b", "new") == "# m\n\n## Evaluation: a.b\n\nnew\n\n## License\n\nmine\n"
    assert with_section("# m\n", "Evaluation: axb", "new").endswith("## Evaluation: axb\n\nnew\n")
