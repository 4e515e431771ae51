"""`fusion merge --evaluate`: the table, the figures in the merged folder, and what is not done twice."""

import json
import shutil

import pytest
import yaml

from fusion import cli
from fusion.cli.merge_evaluation import overlap_notes
from fusion.data.datasets import load
from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.merging.evaluation.evaluated_models import EvaluatedModel
from fusion.merging.evaluation.merge_evaluation import MergeEvaluation
from fusion.models.loading import ModelRef
from fusion.runtime import console
from fusion_eval.runners.heldout import HeldoutSettings, score
from fusion_eval.statistics.metrics import METRICS
from tests.helpers import benchmark_files, tiny
from tests.helpers.families import edit_weights, load_tensors
from tests.helpers.measured_results import result, sample


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, a child like it and one that is worse; three files of four examples."""
    folder = tmp_path_factory.mktemp("merge_evaluation")
    for seed, name in enumerate(("base", "good", "bad")):
        tiny.folder("llama", folder / name)
        edit_weights(folder / name, lambda tensors, seed=seed: tensors["lm_head.weight"].mul_((1, 0.9, 6)[seed]))
    for number, name in enumerate(("sums", "words", "dev")):
        rows = [{"prompt": f"{number} {i}: ", "response": text} for i, text in enumerate(tiny.TEXTS[:4])]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture
def fusion(models, monkeypatch, capsys):
    """The command with this base and these children, in 80 columns; returns its status and what it printed."""

    def call(*arguments, method="task_arithmetic", out="out"):
        inputs = ["--method", method, "--base-model", models / "base", models / "good", models / "bad"]
        words = [*inputs, "--out", models / out, *arguments] if method else arguments
        monkeypatch.setattr("sys.argv", ["fusion", "merge", *map(str, words)])
        monkeypatch.setattr(console.console, "_width", 80)
        status = cli.run()
        said = capsys.readouterr()
        return status, said.out + said.err

    yield call
    for name in ("out", "evaluations"):
        shutil.rmtree(models / name, ignore_errors=True)


def mean_bits(model, file):
    examples = load(str(file), domain="x")
    samples = score(
        ModelRef(str(model)), examples, [PromptFormat()] * len(examples), HeldoutSettings(), progress=lambda n: None
    )
    bits, size = zip(*(METRICS["bits_per_byte"].parts(sample) for sample in samples), strict=True)
    return sum(bits) / sum(size)


def test_the_merged_model_stands_beside_base_and_inputs_and_the_figures_are_in_its_folder(models, fusion):
    status, said = fusion("--evaluate", models / "sums.jsonl", "--evaluate", models / "words.jsonl")
    assert status == 0, said
    assert "Evaluation of 4 models, one in memory at a time" in said
    assert "each on 8 examples (sums 4, words 4)" in said
    table = said[said.index("bits per byte ↓") : said.index("Figures:")]
    assert max(map(len, table.splitlines())) <= 80
    assert all(name in table for name in ("base", "good", "bad", "merged", "mean", "worst"))
    figures = json.loads((models / "out/evaluation.json").read_text())["heldout"]
    assert figures["data"] == [{"path": str(models / f"{name}.jsonl")} for name in ("sums", "words")]
    for model in figures["models"]:
        for domain in ("sums", "words"):
            shown = model["scores"][domain]["bits_per_byte"]["value"]
            assert shown == pytest.approx(mean_bits(model["path"], models / f"{domain}.jsonl"), rel=1e-5)
            assert f"{shown:.3f}" in table
    assert figures["merged_less"]["the best input"]["bits_per_byte"]["domains"]["sums"]["other"] == "good"
    card = (models / "out/README.md").read_text()
    assert "## Evaluation: heldout" in card
    assert f"| merged | {figures['models'][-1]['scores']['sums']['bits_per_byte']['value']:.3f}" in card
    assert not list((models / "evaluations").glob("*-model"))


def test_a_folder_that_is_merged_already_is_evaluated_without_merging_and_nothing_is_read_twice(models, fusion):
    assert fusion()[0] == 0
    weights = models / "out/model.safetensors"
    before = weights.stat().st_mtime_ns
    status, said = fusion("--evaluate", models / "sums.jsonl")
    assert (status, weights.stat().st_mtime_ns) == (0, before)
    assert "there already" in said
    assert said.count(" of 4 requests") == 4
    status, said = fusion("--evaluate", models / "sums.jsonl")
    assert (status, said.count("requests")) == (0, 0)
    assert "bits per byte" in said


def test_an_evaluation_that_failed_loses_no_merge_and_one_that_cannot_begin_merges_nothing(models, fusion, tmp_path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "a", "response": "dog " * 300}))
    status, said = fusion("--evaluate", tmp_path / "long.jsonl")
    assert (status, (models / "out").exists()) == (1, False)
    assert "long.jsonl" in said
    assert "takes 256" in said
    status, said = fusion("--evaluate", models / "sums.jsonl", "--search", models / "sums.jsonl")
    assert (status, (models / "out").exists()) == (1, False)
    assert "4 of 4 validation examples are test examples too" in said


def test_after_a_search_the_table_has_the_best_the_inputs_and_equal_weights(models, fusion, tmp_path):
    recipe = {
        "base_model": str(models / "base"),
        "models": [str(models / "good"), str(models / "bad")],
        "method": "linear",
        "search": {
            "validation": {"path": str(models / "dev.jsonl")},
            "algorithm": {"kind": "grid", "values": [0.2, 1.0]},
        },
        "evaluation": {"path": str(models / "sums.jsonl"), "domain": "questions"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    status, said = fusion(tmp_path / "recipe.yaml", "--out", models / "out", method=None)
    assert status == 0, said
    assert "Search: at most 5 merges, each read on 4 examples" in said
    figures = json.loads((models / "out/evaluation.json").read_text())["heldout"]
    assert [model["name"] for model in figures["models"]] == ["base", "good", "bad", "equal weights", "merged"]
    scores = {m["name"]: m["scores"]["questions"]["bits_per_byte"]["value"] for m in figures["models"]}
    assert scores["merged"] < scores["equal weights"] < scores["bad"]
    assert set(figures["merged_less"]) == {"the base", "the best input", "equal weights"}
    del recipe["evaluation"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    status, said = fusion(tmp_path / "recipe.yaml", "--out", models / "out", method=None)
    assert status == 0, said
    assert "there already" in said
    assert "The weights were chosen on these examples" in said
    record = json.loads((models / "out/search.json").read_text())
    best = min(trial["bits_per_byte"] for trial in record["trials"])
    shown = json.loads((models / "out/evaluation.json").read_text())["validation"]["models"][-1]["scores"]
    assert shown["validation"]["bits_per_byte"]["value"] == pytest.approx(best, rel=1e-6)


def test_a_merged_model_with_figures_is_merged_on_without_them(models, fusion):
    assert fusion("--evaluate", models / "sums.jsonl")[0] == 0
    again = ["--method", "linear", models / "out", models / "good", "--out", models / "again"]
    status, said = fusion(*again, method=None)
    assert status == 0, said
    assert not (models / "again/evaluation.json").exists()
    assert "Evaluation" not in (models / "again/README.md").read_text()
    assert load_tensors(models / "again").keys() == load_tensors(models / "out").keys()
    shutil.rmtree(models / "again")


@pytest.mark.slow
def test_a_suite_of_benchmarks_is_a_table_of_its_own(models, fusion, tmp_path):
    pytest.importorskip("lm_eval")
    data = benchmark_files.benchmarks(tmp_path / "data")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"name": "own", "template": "plain", "tasks": ["arc_c"]}))
    suite = {"suite": str(tmp_path / "own.yaml"), "data": str(data), "max_new_tokens": 8}
    recipe = {
        "base_model": str(models / "base"),
        "models": [str(models / "good"), str(models / "bad")],
        "method": "linear",
        "evaluation": [suite, str(models / "sums.jsonl")],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    status, said = fusion(tmp_path / "recipe.yaml", "--out", models / "out", method=None)
    assert status == 0, said
    figures = json.loads((models / "out/evaluation.json").read_text())
    assert set(figures) == {"heldout", "own"}
    accuracy = figures["own"]["models"][-1]["scores"]["arc_c"]["accuracy"]
    assert (accuracy["n"], 0 <= accuracy["value"] <= 1) == (3, True)


def test_the_models_of_a_run_are_not_evaluated_by_a_merge(models, fusion, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"name": "x", "pivot": {"path": "p"}}))
    status, said = fusion(tmp_path / "run.yaml", "--evaluate", models / "sums.jsonl", method=None)
    assert status == 1
    assert "are measured by fusion evaluate" in " ".join(said.split())


def test_questions_of_a_suite_that_weights_were_chosen_on_are_counted_below_its_table():
    words = " ".join(f"word{i}" for i in range(14))
    samples = [sample(f"{i}").model_copy(update={"prompt": prompt}) for i, prompt in enumerate([words, "other " * 14])]
    found = MergeEvaluation([EvaluatedModel("merged", "merged", "m")], [result("merged", samples, suite="own")])
    validation = [Example(({"role": "user", "content": words.upper()},), "x", "validation")]
    assert overlap_notes(found, validation) == [
        "1 of 2 questions of sums share 13 words in a row with the examples that the weights were chosen on."
    ]
    assert overlap_notes(found, []) == []
