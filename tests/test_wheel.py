"""The wheel, installed by itself in another place, has all it needs: code, recipes, templates, the built-in models."""

import os
import subprocess
import sys
import zipfile
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


def run(place, *command):
    environment = {**os.environ, "PYTHONPATH": str(place), "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True, check=True
    )


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
