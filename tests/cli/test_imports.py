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
RUN = """
import sys
from fusion.cli import run
sys.argv = ["fusion", *{arguments}]
status = run()
print("IMPORTED", *sorted({slow} & sys.modules.keys()))
sys.exit(status)
"""


def imported(folder, *arguments: str) -> list[str]:
    """The slow modules that a command loaded, in a process of its own."""
    code = RUN.format(arguments=arguments, slow=SLOW)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.rpartition("IMPORTED")[2].split()


def test_a_plan_imports_no_trainer_no_model_and_no_library_of_data_or_figures(tmp_path):
    assert imported(tmp_path, "plan", "quickstart") == []


@pytest.mark.parametrize("command", ["recipes", "schema"])
def test_commands_without_a_run_import_none_of_these(command, tmp_path):
    assert imported(tmp_path, command) == []


def test_the_stages_before_training_import_no_trainer_and_no_figures(tmp_path):
    code = "import sys, fusion.pipeline; print(*{'transformers.trainer', 'matplotlib', 'peft', 'lm_eval'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
