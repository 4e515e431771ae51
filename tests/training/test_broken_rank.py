"""A process whose numbers are none stops all processes at the same step, and none waits for it."""

import pytest

from fusion.cli import boundary
from tests.helpers import broken_rank, spread


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    spread.prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2", "zero3", "fsdp2"])
def test_all_processes_stop_at_the_step_in_which_one_reads_nan(folder, engine):
    done = spread.launch(2, broken_rank.__file__, str(folder), engine)
    assert done.returncode != 0
    assert "Error in process 1: Step 2: the term " in done.stderr, done.stderr
    assert "weighting gives source neox a weight of nan in example" in done.stderr
    assert boundary.BUG not in done.stderr
    assert not list((folder / f"broken-{engine}").glob("model/*"))
