"""The wheel, installed by itself in another place, has all it needs: code, recipes, templates, the built-in models."""

import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = out.glob("logit_fusion-*.whl")
    return file


@pytest.fixture(scope="module")
def place(wheel):
    folder = wheel.parent / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def run(place, *command, folder=None):
    environment = {**os.environ, "PYTHONPATH": str(place), "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder or place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_it_holds_what_git_holds_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    expected = {name for name in tracked if name.startswith("fusion/")}
    expected |= {
        name.split("/", 1)[1] for name in tracked if name.startswith(("eval/fusion_eval/", "launch/fusion_launch/"))
    }
    expected |= {f"fusion/{name}" for name in tracked if name.startswith("configs/")}
    assert names == expected
    assert any(name.endswith("model.safetensors") for name in names)


def test_it_is_the_installed_one_that_runs(place):
    out = run(place, "-c", "import fusion, fusion_eval; print(fusion.__file__, fusion_eval.__file__)").stdout
    assert out.count(str(place)) == 2


def test_it_lists_recipes_and_plans_the_quickstart(place):
    assert "quickstart" in run(place, "-m", "fusion", "recipes").stdout
    out = run(place, "-m", "fusion", "plan", "quickstart").stdout
    assert "train unified" in out


def test_its_built_in_models_answer(place):
    code = (
        "from fusion.quickstart import MODELS; from fusion.models.loading import *; m = ModelRef(str(MODELS['sums']));"
    )
    code += "t = load_tokenizer(m); i = t('47 + 38 =', return_tensors='pt')['input_ids'];"
    code += (
        "print(t.decode(load_model(m).generate(i, max_new_tokens=16, do_sample=False)[0], skip_special_tokens=True))"
    )
    assert "eighty-five" in run(place, "-c", code).stdout


QUICK = {"training_loop", "two_tokenizers"}
NEEDS = {"sft_trainer": "trl", "exact_graphs": "ot"}
EXAMPLES = sorted(f for f in (ROOT / "examples").glob("*.py") if f.stem not in NEEDS or find_spec(NEEDS[f.stem]))
EACH_IN_TURN = """
import runpy, sys
import fusion
for number, file in enumerate(sys.argv[1:]):
    sys.argv = [file, f"out{number}"]
    print("EXAMPLE", file, flush=True)
    runpy.run_path(file, run_name="__main__")
"""


def said_by(examples, place, folder):
    """What each prints, by its name; all in one process, which imports torch once."""
    out = run(place, "-c", EACH_IN_TURN, *map(str, examples), folder=folder).stdout
    parts = dict(part.split("\n", 1) for part in out.split("EXAMPLE ")[1:])
    assert [Path(name) for name in parts] == examples
    return {Path(name).stem: text for name, text in parts.items()}


def test_the_quick_examples_run_from_the_wheel(place, tmp_path):
    said = said_by([file for file in EXAMPLES if file.stem in QUICK], place, tmp_path)
    assert said.keys() == QUICK
    assert "5 rows belong together, after [0, 2, 5, 9, 12] bytes" in said["two_tokenizers"]


@pytest.mark.slow
def test_every_example_runs_from_the_wheel(place, tmp_path):
    said = said_by(EXAMPLES, place, tmp_path)
    assert "hellinger 0.0" in said["own_objective"]
    assert "sort        23 of 24 answers have a reward of 1" in said["reward_function"]
    assert "POT finds a better matching than the sorted one in 12 of 12 examples" in said["exact_graphs"]
    assert "merged minus pivot" in said["merge"]
    assert "unified" in said["run"]


def test_the_page_of_examples_lists_each():
    page = (ROOT / "examples" / "README.md").read_text()
    assert {file.name for file in (ROOT / "examples").glob("*.py")} == set(re.findall(r"\]\((\w+\.py)\)", page))
