"""`fusion extract` in several processes, as torchrun starts them: the caches are those that one process makes."""

import subprocess
import sys

import pytest
import yaml

from fusion import pipeline
from tests.helpers import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def caches(run):
    return {str(file.relative_to(run)): file.read_bytes() for file in (run / "cache").rglob("*") if file.is_file()}


def test_two_ranks_make_the_caches_that_one_process_makes_and_one_of_them_talks(folder):
    alone = pipeline.run(runs.config(folder, name="alone"), until="extract")
    (folder / "two.yaml").write_text(yaml.safe_dump(runs.raw(folder, name="two")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*launch, "-m", "fusion", "extract", str(folder / "two.yaml")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert caches(folder / "runs/two") == caches(alone)
    assert done.stdout.count("extract neox") == done.stdout.count("extract qwen") == 2  # in the plan, and as a heading
