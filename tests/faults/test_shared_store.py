"""Two runs, each a process, that share a store and start at once: nothing is computed twice, and both are as if alone."""

import subprocess
import sys

import pytest
import yaml

from tests.faults.tiny_run import results_in
from tests.helpers import runs


def start(folder, name, **changes):
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(runs.raw(folder, name=name, strategies=["unified"], baseline=False, **changes)))
    return subprocess.Popen([sys.executable, "-m", "fusion", "run", str(file)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_runs_of_one_store_at_once_share_all_work_and_end_as_if_alone(tmp_path):
    alone = start(tmp_path, "alone")
    assert alone.wait() == 0
    both = [start(tmp_path, name, store=str(tmp_path / "store")) for name in ("a", "b")]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    expected = results_in(tmp_path / "runs/alone/fused")
    assert expected == results_in(tmp_path / "runs/a/fused") == results_in(tmp_path / "runs/b/fused")
    assert len(list((tmp_path / "store/train").iterdir())) == 1
    assert not [path for pattern in ("*.part", "claims", "*.lock") for path in (tmp_path / "store").rglob(pattern)]
    trained = [text.count("training unified: 4 of 4 steps") for text in said]
    assert sorted(trained) == [0, 1], said
