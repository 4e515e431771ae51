"""The command line as a person meets it: help at once, errors in a sentence, plans before costs."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest
import yaml

from fusion import cli, plan
from fusion.config import loading
from fusion.config.recipes import recipes
from fusion.runtime import console
from fusion.stages.context import RunContext
from tests.helpers import runs, tiny


@dataclass
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def fusion(*arguments):
    """The command as it is installed, without the seconds that a new process takes to import torch."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["fusion", *map(str, arguments)])
        patch.setattr(console.console, "_width", 160)
        status = cli.run()
    return Outcome(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.yaml").write_text(yaml.safe_dump(runs.raw(folder)))
    return folder / "small.yaml"


def test_help_names_every_command_and_imports_no_torch():
    command = [sys.executable, "-X", "importtime", "-m", "fusion", "--help"]
    out = subprocess.run(command, capture_output=True, text=True)
    for name in (
        "run",
        "plan",
        "extract",
        "train",
        "merge",
        "evaluate",
        "report",
        "inspect",
        "launch",
        "push",
        "recipes",
        "schema",
    ):
        assert name in out.stdout
    assert "torch" not in out.stderr  # which lists every import


def test_recipes_are_listed_with_what_they_are():
    out = fusion("recipes").stdout
    assert len(out.splitlines()) == len(recipes())
    assert "Three tiny specialists" in out


def test_the_schema_is_a_json_schema():
    schema = json.loads(fusion("schema").stdout)
    assert {"pivot", "sources", "objectives"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strateggies=[unified]"], "unknown key strateggies; did you mean strategies?"),
        (["extract.top_k=0"], "extract.top_k: must be at least 1"),
        (["data.train[0].limit=0"], "data.train[0].limit: "),
        (["data.train.0.path=/no/such/file.jsonl"], "The data file /no/such/file.jsonl does not exist"),
        (["sources.neox.path=/no/such/model"], "The model /no/such/model does not exist"),
    ],
)
def test_a_mistake_is_one_message_and_no_traceback(config, overrides, message):
    out = fusion("run", config, *(part for o in overrides for part in ("--set", o)))
    assert out.returncode == 1
    assert message in out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize("stage", ["rounds", "preferences"])
def test_a_stage_that_a_run_does_not_have_is_refused(config, stage):
    out = fusion(stage, config)
    assert out.returncode == 1
    assert f"has no {stage}, and `fusion {stage}` is for runs that do; use `fusion run`" in out.stderr


def test_the_folder_of_a_run_names_its_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    assert f"is the folder of a run; its configuration is {tmp_path}/config.yaml" in fusion("plan", tmp_path).stderr


def test_plan_reads_no_weights_and_writes_nothing(config, tmp_path):
    before = sorted(config.parent.rglob("*"))
    hidden = [file.rename(file.with_suffix(".hidden")) for file in config.parent.glob("*/model.safetensors")]
    try:
        out = fusion("plan", config)
    finally:
        for file in hidden:
            file.rename(file.with_suffix(".safetensors"))
    assert out.returncode == 0, out.stderr
    for stage in ("extract neox", "train unified", "evaluate fine-tuned", "training: d0 8, d1 8"):
        assert stage in out.stdout
    assert sorted(config.parent.rglob("*")) == before


def test_a_plan_for_a_cluster_needs_neither_weights_nor_data_nor_network():
    out = fusion("plan", "infifusion_unified_14b", "--gpus", 16, "--gpu", "a100", "--mfu", 0.5)
    assert out.returncode == 0, out.stderr
    for part in ("on 16 x a100", "at 50% (plan.mfu, an assumption)", "zero3", "✗"):
        assert part in out.stdout


def test_the_plan_says_what_then_happens(config):
    out = fusion("run", config)
    assert out.returncode == 0, out.stderr
    context = RunContext(loading.load(config))
    estimates = {estimate.stage: estimate for estimate in plan.plan(context).stages}
    for name in ("neox", "qwen"):
        files = (context.config.folder / "cache" / name).glob("shard-*.safetensors")
        disk = sum(file.stat().st_size for file in files)
        assert estimates[f"extract {name}"].disk == pytest.approx(disk, rel=0.35)  # headers weigh on so few rows
    state = json.loads((context.config.folder / "train/unified/checkpoint-4/trainer_state.json").read_text())
    assert estimates["train unified"].steps == state["max_steps"] == 4
    again = fusion("evaluate", config)  # as far as a run skips what is done
    assert again.stdout.count("nothing to do") == 11  # 3 extract, 2 train, fuse, 5 evaluate
    assert (context.config.folder / "report.html").exists()


def test_inspect_audits_the_alignment(config):
    out = fusion("inspect", config, "--alignment").stdout
    for part in ("gpt_neox", "same tokens", "neox: positions of the pivot", "by domain", "d0", "never matched"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["local"], "-m fusion run {config} --set seed=1"),
        (["torchrun", "--gpus", 2], "--nnodes=1 --nproc-per-node=2 --standalone -m fusion run {config}"),
        (["slurm", "--nodes", 2, "--option", "partition=gpu"], "#SBATCH --partition=gpu"),
        (["kubernetes", "--option", "image=a", "--option", "claim=b"], "kind: PyTorchJob"),
    ],
)  # fmt: skip
def test_a_dry_run_prints_what_would_run_and_runs_nothing(config, arguments, printed):
    before = sorted(config.parent.rglob("*"))
    out = fusion("launch", config, "--on", *arguments, "--set", "seed=1", "--dry-run")
    assert out.returncode == 0, out.stderr
    assert printed.format(config=config) in out.stdout
    assert sorted(config.parent.rglob("*")) == before


def test_what_a_dry_run_of_slurm_prints_is_the_script_alone(config):
    out = fusion("launch", config, "--on", "slurm", "--dry-run")
    assert out.stdout.startswith("#!/bin/bash\n")
    assert subprocess.run(["bash", "-n"], input=out.stdout, text=True).returncode == 0
    assert out.stderr == "# sbatch reads this.\n"


def test_a_launch_runs_the_run_and_passes_its_exit_code_on(config, monkeypatch):
    out = fusion("launch", config, "--on", "local", "--set", "data.train.0.path=/no/such.jsonl")
    assert out.returncode == 1  # the run's own error, from its own process


def test_a_mistake_in_a_configuration_is_said_before_it_is_launched(config):
    out = fusion("launch", config, "--on", "slurm", "--set", "trainign.max_steps=1")
    assert out.returncode == 1
    assert "did you mean training?" in out.stderr


def test_launching_needs_no_torch():
    code = "import sys, fusion_launch; assert not {'torch', 'fusion', 'transformers'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_inspect_shows_classes_of_tokens_and_units_that_stand_for_concepts(config):
    assert fusion("extract", config).returncode == 0
    out = " ".join(fusion("inspect", config, "--classes", "3", "--concepts", "residual").stdout.split())
    assert "neox: what is expected where a token follows" in out
    assert "Units (residual) whose 0.5% largest values" in out
    wrong = fusion("inspect", config, "--concepts", "attention")
    assert wrong.returncode == 2
    assert "mlp" in wrong.stderr
    assert "residual" in wrong.stderr


def test_inspect_shows_how_far_graph_terms_lie_from_pots_solvers(config):
    assert fusion("extract", config).returncode == 0
    out = fusion("inspect", config, "--graph").stdout
    for part in (
        "neox: Gromov-Wasserstein",
        "qwen: Gromov",
        "sorted row sums",
        "entropic",
        "POT found no better matching",
    ):
        assert part in out


def test_inspect_shows_how_sources_rescale_the_examples_once_they_are_extracted(config):
    early = fusion("inspect", config, "--set", "name=early", "--rescaling", "0.5")
    assert early.returncode == 1
    assert "holds no complete cache" in early.stderr
    assert fusion("extract", config).returncode == 0
    out = fusion("inspect", config, "--rescaling", "0.5").stdout
    for part in ("neox: gradient at the true token", "qwen: gradient", "pivot's p", "below 0", "d1"):
        assert part in out


# Merging without a run


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merge")
    for seed, name in enumerate(("base", "a", "b")):
        tiny.folder("llama", folder / name, seed)
    return folder


def test_merging_by_name_and_by_recipe_give_the_same_folder(children):
    words = [
        "--method",
        "ties",
        "--base-model",
        children / "base",
        f"{children}/a:0.3",
        f"{children}/b:0.6",
        "--set",
        "density=0.5",
    ]
    out = fusion("merge", *words, "--out", children / "words", "--dtype", "bfloat16")
    assert out.returncode == 0, out.stderr
    assert "words: merged." in out.stdout
    raw = {
        "base_model": str(children / "base"),
        "models": [{"model": str(children / "a"), "weight": 0.3}, {"model": str(children / "b"), "weight": 0.6}],
        "method": {"kind": "ties", "density": 0.5},
    }
    (children / "r.yaml").write_text(yaml.safe_dump(raw))
    out = fusion("merge", children / "r.yaml", "--out", children / "file", "--dtype", "bfloat16", "--threads", 1)
    assert out.returncode == 0, out.stderr
    weights = [(children / name / "model.safetensors").read_bytes() for name in ("words", "file")]
    assert weights[0] == weights[1]
    again = fusion("merge", children / "r.yaml", "--out", children / "file", "--dtype", "bfloat16")
    assert "file: there already, from exactly these inputs." in again.stdout
    other = fusion("merge", children / "r.yaml", "--out", children / "file")
    assert other.returncode == 1
    assert "file was merged with another dtype" in other.stderr


def test_a_search_by_name_ends_with_its_weights(children):
    (children / "dev.jsonl").write_text(json.dumps({"prompt": "a", "response": "the lazy dog"}))
    slerp = ["--method", "slerp", children / "a", children / "b", "--out", children / "found"]
    out = fusion("merge", *slerp, "--search", children / "dev.jsonl")
    assert out.returncode == 0, out.stderr
    assert "bits per byte" in out.stdout
    best = json.loads((children / "found/search.json").read_text())["best"]
    assert json.loads((children / "found/merge.json").read_text())["method"]["t"] == best[0]
    again = fusion("merge", *slerp, "--search", children / "dev.jsonl")
    assert "found: there already, from exactly these inputs." in again.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "tiez", "a"], "fusion merge: method.kind: "),
        (["--method", "linear", "a", "--set", "normalize"], "--set normalize: write it as name=value"),
        (["--method", "linear", "/no/a", "/no/b"], "There is no folder /no/a"),
        (["--method", "linear", "/no/a", "/no/b:x"], "There is no folder /no/a"),
        (["a", "b"], "a is no recipe of a merge; give a recipe, or --method"),
        (["quickstart", "--dtype", "float16"], "quickstart is no recipe of a merge"),
        (["r.yaml", "--set", "density=0.5"], "r.yaml is a recipe: write its base_model and settings there"),
        (["r.yaml", "--base-model", "x"], "r.yaml is a recipe"),
        (["r.yaml", "other"], "r.yaml is a recipe, and other no part of it"),
        (["--method", "linear", "a/run", "/no/b"], "a/run is the folder of a run; its model is a/run/fused."),
    ],
)
def test_a_mistake_in_a_merge_is_one_message(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("{models: [a], method: linear}")
    (tmp_path / "a/run/fused").mkdir(parents=True)
    (tmp_path / "a/run/fused/config.json").write_text("{}")
    out = fusion("merge", *words, "--out", "result")
    assert out.returncode == 1
    assert message in out.stderr
    assert "Traceback" not in out.stderr
    assert not (tmp_path / "result").exists()


def test_a_merge_without_a_folder_for_it_is_refused():
    assert "Name the folder of the merged model with --out" in fusion("merge", "--method", "linear", "a").stderr


def test_a_run_still_goes_as_far_as_its_merge(config):
    out = fusion("merge", config)
    assert out.returncode == 0, out.stderr
    assert (config.parent / "runs/small/fused/config.json").is_file()


def test_merging_imports_neither_transformers_nor_data_sets(children):
    words = ["merge", "--method", "linear", children / "a", children / "b", "--out", children / "light"]
    command = [sys.executable, "-X", "importtime", "-m", "fusion", *map(str, words)]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    imported = {line.rpartition("|")[2].strip() for line in out.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"transformers", "datasets", "scipy", "accelerate"}


LEAVING = """
import atexit, concurrent.futures, os, sys, threading, time
from fusion import cli

def command():
    atexit.register(print, "handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    {end}

cli.run = command
cli.main()
"""


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("return 0", 0, ""),
        ("return 3", 3, ""),
        ("raise RuntimeError('broken')", 1, "RuntimeError: broken"),
        ("sys.exit('no')", 1, "no"),
    ],
)
def test_leaving_at_once_waits_for_threads_and_handlers_and_keeps_the_status(end, status, said):
    done = subprocess.run([sys.executable, "-c", LEAVING.format(end=end)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "thread\nhandler\n")
    assert said in done.stderr
