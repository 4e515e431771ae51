"""The card's front matter is read by the hub's own parser, its claims follow from the numbers, its text cannot break out."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from fusion.report.differences import all_differences
from fusion.report.model_card import CONCLUSION, model_card
from fusion.report.run_contents import read_run
from fusion.report.score_table import markdown
from fusion.report.verdict import verdict
from fusion_eval.results import Result
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS
from tests.helpers.report_runs import SKILL, change, result, run_json, write_run


def front(card: str) -> dict:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def models(**changes) -> dict:
    """The models of the run, changed: `smol={"license": ...}`."""
    return {name: facts | changes.get(name.replace("-", "_"), {}) for name, facts in run_json()["models"].items()}


def test_the_front_matter_names_what_the_hub_asks_for(tmp_path):
    card = model_card(write_run(tmp_path / "run"))
    assert front(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "base_model": ["org/pivot-1m", "org/smol", "lab/tiny.llama"],
        "base_model_relation": "finetune",
        "datasets": ["org/questions"],
        "tags": ["model-fusion", "knowledge-distillation"],
        "model-index": front(card)["model-index"],
    }


def test_the_parser_of_the_hub_reads_the_card(tmp_path):
    card = ModelCard(model_card(write_run(tmp_path / "run")), ignore_metadata_errors=False)
    assert card.data.base_model == ["org/pivot-1m", "org/smol", "lab/tiny.llama"]
    assert card.data.license == "apache-2.0"
    assert card.text.lstrip().startswith("# three-skills")


def test_the_hub_reads_the_results_that_the_tables_show(tmp_path):
    run = write_run(tmp_path / "run")
    result("unified", 0.6, suite="other").save(run / "eval" / "unified" / "other.json")
    result("finetune", suite="other").save(run / "eval" / "finetune" / "other.json")
    card = ModelCard(model_card(run), ignore_metadata_errors=False)
    assert card.data.datasets == ["org/questions"]
    assert card.data.model_name == "three-skills"
    found = {(r.dataset_type, r.dataset_config, r.metric_type): r for r in card.data.eval_results}
    assert len(found) == len(card.data.eval_results) == 2 * 4 * 2  # suites, domains and mean, metrics
    for suite, skill in (("heldout", 0.8), ("other", 0.6)):
        for domain, metrics in summarise(result("unified", skill, suite=suite)).items():
            for metric, interval in metrics.items():
                one = found[suite, domain, metric]
                assert f"{one.metric_value:.{METRICS[metric].digits}f}" == METRICS[metric].show(interval.value)
                assert (one.task_type, one.metric_name) == ("text-generation", METRICS[metric].label)


def test_without_results_there_is_no_model_index_and_without_hub_data_no_datasets(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, result="never", data=None)
    assert not {"model-index", "datasets"} & set(front(model_card(run)))


def test_the_card_says_how_much_of_the_gap_was_closed_and_what_got_worse_than_the_pivot(tmp_path):
    run = write_run(tmp_path / "run")
    result("smol", 0.95).save(run / "eval" / "smol" / "heldout.json")
    share = all_differences(read_run(run))["heldout", "exact_match"].rows[-1].gap_closed
    shown = f"{100 * share.value:.0f}% ({100 * share.low:.0f}% to {100 * share.high:.0f}%)"
    card = model_card(run)
    assert f"exact match %: {shown} of the gap between finetune and the best source of each domain is closed." in card
    assert "is worse than pivot" not in card
    bad = model_card(write_run(tmp_path / "bad", SKILL | {"unified": 0.0, "pivot": 0.5}))
    assert "and worse than the untouched pivot in domains dates, lists, sums." in bad
    assert "But something was lost: in domains dates, lists, sums the pivot, as it was before, is better." in bad
    assert "But something was lost" not in card


def test_merged_pairwise_models_are_a_merge(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, result="pairwise")
    card = model_card(run)
    assert front(card)["base_model_relation"] == "merge"
    assert "merge" in front(card)["tags"]
    assert "one training for each source, and then merged" in card


@pytest.mark.parametrize("other", ["mit", None])
def test_where_licences_differ_or_are_not_stated_none_is_claimed(tmp_path, other):
    run = write_run(tmp_path / "run")
    change(run, models=models(smol={"license": other}))
    card = model_card(run)
    assert "license" not in front(card)
    assert "read each before using or sharing it" in card
    assert "read each" not in model_card(write_run(tmp_path / "same"))


def test_other_is_not_one_license_without_a_name(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, models={name: facts | {"license": "other"} for name, facts in models().items()})
    card = model_card(run)
    assert "license" not in front(card)
    assert "read each before using or sharing it" in card


def test_the_spelling_of_a_license_is_the_hubs(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, models=models(smol={"license": "Apache-2.0"}))
    assert front(model_card(run))["license"] == "apache-2.0"


def test_a_folder_is_shown_by_its_name_and_settings_without_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))
    run = write_run(tmp_path / "run")
    change(run, models=models(pivot={"hub": False, "id": "/home/jane/a"}, smol={"hub": False, "id": "/data/jane/b"}))
    (run / "config.yaml").write_text("pivot: {path: /home/jane/a}\n")
    card = model_card(run)
    assert "| pivot | pivot | a |" in card
    assert "`b`" in card
    assert "pivot: {path: ~/a}" in card
    assert "jane" not in card


def test_folders_are_no_base_models(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, models=models(pivot={"hub": False, "id": "models/pivot"}, smol={"hub": False}))
    assert front(model_card(run))["base_model"] == ["lab/tiny.llama"]
    change(run, models=models(pivot={"hub": False}, smol={"hub": False}, tiny_llama={"hub": False}))
    assert not {"base_model", "base_model_relation"} & set(front(model_card(run)))


def test_the_card_holds_the_table_the_verdict_and_the_lineage(tmp_path):
    card = model_card(write_run(tmp_path / "run"))
    assert markdown([result(model) for model in SKILL], "finetune") in card
    found = verdict(result("unified"), result("finetune"))
    assert all(line in card for line in [found.headline, *found.details])
    assert "| smol | source | org/smol | apache-2.0 | 9a02bd77e8104f1c |" in card
    assert "- {kind: forward_kl, weight: 0.5}" in card
    assert "Held-out examples: dates 40, lists 40, sums 40." in card
    assert "Measured on heldout (dates, lists, sums)." in card
    assert "Made 2026-01-02T03:04:05+00:00 with" in card
    assert "on 2 cores of Some CPU." in card


@pytest.mark.parametrize(("skill", "outcome"), [(0.9, "better"), (0.2, "worse")])
def test_the_conclusion_follows_from_the_numbers(tmp_path, skill, outcome):
    card = model_card(write_run(tmp_path / "run", SKILL | {"unified": skill}))
    assert [said for said, text in CONCLUSION.items() if text in card] == [outcome]


def test_a_model_that_equals_plain_fine_tuning_is_not_called_better(tmp_path):
    run = write_run(tmp_path / "run")
    same = Result.load(run / "eval" / "finetune" / "heldout.json").model_copy(update={"model": "unified"})
    same.save(run / "eval" / "unified" / "heldout.json")
    card = model_card(run)
    assert "unified is not shown to differ from finetune" in card
    assert "plain fine-tuning, which is simpler, would have done as well" in card
    assert "is better" not in card


def test_without_a_comparison_nothing_is_claimed(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, baseline=None)
    card = model_card(run)
    assert "run.json names no baseline among the evaluated models. So nothing is claimed." in card
    assert not any(text in card for text in CONCLUSION.values())


def test_a_model_that_was_not_evaluated_claims_nothing(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "begun", "created": "today"}')
    card = model_card(tmp_path)
    assert "has not been evaluated, so nothing is claimed" in card
    assert "Measured on nothing yet." in card
    assert "The settings of the run were not kept." in card


def test_names_and_settings_cannot_break_out_of_their_place(tmp_path):
    run = write_run(tmp_path / "run")
    change(
        run, name="a\n---\nlicense: mit\n# b", models=models(pivot={"id": "a: [b\n---\nx", "license": "a|b\n<script>"})
    )
    (run / "config.yaml").write_text("a: |\n  ```\n  # not a heading\n")
    card = model_card(run)
    assert "license" not in front(card)
    assert "\n---\nlicense" not in card
    assert "a\\|b &lt;script>" in card
    assert "````yaml\na: |\n  ```\n  # not a heading\n````\n" in card


def test_the_same_run_gives_the_same_card(tmp_path):
    assert model_card(write_run(tmp_path / "a")) == model_card(write_run(tmp_path / "b"))


def test_the_card_explains_the_names_of_its_models_before_it_uses_them(tmp_path):
    card = model_card(write_run(tmp_path / "run"))
    for name, words in [("unified", "one training"), ("finetune", "without any source"), ("pivot", "untouched")]:
        line = next(line for line in card.splitlines() if line.startswith(f"- {name}: "))
        assert words in line
        assert card.index(line) < card.index(f"| {name} ")


def test_the_card_claims_no_predictions_where_texts_alone_were_learned(tmp_path):
    run = write_run(tmp_path / "run")
    assert "trained on text together with the next-token probabilities" in model_card(run, resamples=2)
    chosen = {"source": "smol", "domain": "sums", "prompts": 9, "answers": 9, "passed": 7, "chosen": 7}
    change(run, learns_predictions=False, responses=[chosen])
    card = " ".join(model_card(run, resamples=2).split())
    assert "know: trained on answers that sources wrote. It is an ordinary Transformers model" in card
    assert "probabilities that the sources give" not in card
