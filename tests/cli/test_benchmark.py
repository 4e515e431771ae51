"""`fusion benchmark` as a person meets it: several models, one table, a guard with an exit code."""

import json
from importlib.util import find_spec

import pytest

from fusion.cli import benchmark as cli_benchmark
from fusion.models.loading import ModelRef, load_model
from fusion_eval.results import Result
from fusion_eval.runners import shared_prefix_lm
from fusion_eval.statistics.guard import regressions
from tests.cli.test_cli import fusion
from tests.helpers import benchmark_files


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark_files.benchmarks(folder / "data")
    rows = [{"question": f"How much is {i} + {i}?", "answer": f"It is\n#### {2 * i}"} for i in range(12)]
    benchmark_files.write(folder / "data", "gsm8k/test", rows)
    benchmark_files.roomy("llama", folder / "base")
    spoiled = load_model(ModelRef(str(benchmark_files.roomy("gpt_neox", folder / "neox", seed=1))))
    spoiled.get_output_embeddings().weight.data *= 8  # as sure of itself as it is wrong: worse on every text
    spoiled.save_pretrained(folder / "neox")
    (folder / "small.yaml").write_text(
        "template: plain\ntasks: [arc_c-stock, mmlu-stock, gsm8k-text]\nlimit: {mmlu-stock: 4}"
    )
    return folder


def run(place, *arguments):
    return fusion(
        "benchmark", *arguments, "--suite", place / "small.yaml", "--data", place / "data", "--out", place / "out"
    )


def test_models_are_compared_and_the_guard_names_what_got_worse(place):
    models = [f"pivot={place}/base", f"math={place}/neox", f"sft={place}/base", f"fused={place}/neox"]
    (place / "train.jsonl").write_text(json.dumps({"text": "How much is 1 + 1? It is 2."}))
    found = ("--guard", "pivot,sft", "--baseline", "sft", "--fusion-data", place / "train.jsonl", "--subsets")
    out = run(place, *models, *found)
    results = {name: Result.load(place / f"out/{name}/small.json") for name in ("pivot", "math", "sft", "fused")}
    worse = regressions(results["fused"], [results["pivot"], results["sft"]])
    assert {regression.domain for regression in worse} == {"gsm8k-text"}
    assert out.returncode == 3
    assert all(f"Worse: {regression}" in out.stderr for regression in worse)
    for part in (
        "small: 4 models",
        "accuracy %",
        "bits per byte",
        "small: mmlu-stock",
        "gap closed",
        "13 words in a row",
    ):
        assert part in out.stdout
    assert results["pivot"].samples == results["sft"].samples
    overlap = json.loads((place / "out/contamination-small.json").read_text())
    assert [o["domain"] for o in overlap] == ["arc_c-stock", "mmlu-stock", "gsm8k-text"]
    back = run(place, *reversed(models), "--guard", "fused")
    assert (back.returncode, back.stderr) == (0, "")


def test_the_same_command_again_loads_no_model(place, monkeypatch):
    assert run(place, place / "base", place / "neox").returncode == 0
    monkeypatch.setattr(shared_prefix_lm, "load_model", None)
    assert "accuracy %" in run(place, place / "base", place / "neox").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "base"], "Two models are called base; give one another name: other="),
        (["base", "neox", "--guard", "pivot"], "--guard pivot: no such model to compare neox with; there are base."),
        (["base", "neox", "--guard", "neox"], "--guard neox: no such model"),
        (["base", "neox", "--baseline", "sft"], "--baseline sft: no such model"),
        (["nothing/here/at/all"], "does not exist. A model is a folder"),
        (["base", "--backend", "vllm"], "vLLM is not installed"),
        (["base", "--fusion-data", "/no/such.jsonl"], "/no/such.jsonl does not exist"),
    ],
)
def test_a_mistake_is_one_message(place, arguments, message):
    if "vllm" in arguments and find_spec("vllm"):
        pytest.skip("vLLM is installed")
    whole = [
        place / a if a in ("base", "neox") and arguments[n - 1] != "--guard" else a for n, a in enumerate(arguments)
    ]
    out = run(place, *whole)
    assert out.returncode == 1
    assert message in out.stderr
    assert "Traceback" not in out.stderr


def test_a_missing_extra_is_named(place, monkeypatch):
    monkeypatch.setattr(cli_benchmark, "find_spec", lambda name: None)
    assert "pip install 'logit-fusion[eval]'" in run(place, place / "base").stderr


def test_an_unknown_suite_is_named(place):
    assert fusion("benchmark", place / "base", "--suite", "quik").stderr.count("no suite quik; known are") == 1


@pytest.mark.parametrize(
    "arguments",
    [["a", "b"], ["quickstart", "--limit", 3], ["base", "--suite", "quick"], ["--suite", "quick", "a=base", "b=base"]],
)
def test_evaluate_takes_a_configuration_alone_and_names_the_command_for_models(arguments):
    out = fusion("evaluate", *arguments)
    assert out.returncode == 1
    assert "fusion evaluate takes one CONFIG" in out.stderr
    assert "fusion benchmark MODELS... --suite NAME" in out.stderr
