"""A command imports what it needs: libraries that take long to import are not among what `fusion plan` loads."""

import subprocess
import sys

import pytest

SLOW = {
    "accelerate",
    "datasets",
    "deepspeed",
    "lm_eval",
    "matplotlib",
    "pandas",
    "peft",
    "pyarrow",
    "scipy",
    "sympy",
    "tensorboard",
    "torch._dynamo",
    "torch.distributed.tensor",
    "transformers.modeling_utils",
    "transformers.trainer",
    "transformers.training_args",
}
COMMANDS = ["recipes", "schema", "plan quickstart"]
RUN = f"""
import sys
from fusion.cli import run
for words in {COMMANDS}:
    sys.argv = ["fusion", *words.split()]
    assert run() == 0
    print("IMPORTED", words, *sorted({SLOW} & sys.modules.keys()), sep="|")
import fusion.pipeline
print("IMPORTED", "pipeline", *sorted({SLOW} & sys.modules.keys()), sep="|")
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict[str, list[str]]:
    """The slow modules that were loaded after each command and the import of the pipeline, one after another in one process."""
    folder = tmp_path_factory.mktemp("imports")
    done = subprocess.run([sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True, check=True)
    lines = [line.split("|")[1:] for line in done.stdout.splitlines() if line.startswith("IMPORTED|")]
    return {what: modules for what, *modules in lines}


def test_a_plan_imports_no_trainer_no_model_and_no_library_of_data_or_figures(imported):
    assert imported["plan quickstart"] == []


@pytest.mark.parametrize("command", ["recipes", "schema"])
def test_commands_without_a_run_import_none_of_these(command, imported):
    assert imported[command] == []


def test_the_stages_before_training_import_no_trainer_and_no_figures(imported):
    assert not {"transformers.trainer", "matplotlib", "peft", "lm_eval"} & set(imported["pipeline"])
