"""One of two processes under torchrun is killed at a seeded moment; the same command goes on to the same weights.

`python -m tests.faults.ranks [NUMBER] [--from NUMBER] [--log FILE]` prints a line for each try. `python -m
tests.faults.ranks rank WORDS` is what torchrun starts: `fusion WORDS`, disturbed in the process that FUSION_FAULT names.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.tiny_run import TinyRun, in_child, results_in, unfinished_in, write_config

CHANGES = {"baseline": False, "engine": {"kind": "ddp", "global_batch_size": 4}}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def torchrun(config: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run everything in two processes; `fault` is RANK:EVENT."""
    words = [*TORCHRUN, "-m", "tests.faults.ranks", "rank", "run", str(config)]
    environment = os.environ | {"FUSION_FAULT": fault, "FUSION_EVENTS": str(config.parent / "events-")}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=600)


def be_rank(words: Sequence[str]) -> int:
    """Be one process of such a run."""
    from fusion import cli
    from tests.faults.merges import Disturbance

    rank, fault = os.environ["RANK"], os.environ["FUSION_FAULT"].split(":")
    disturbance = Disturbance("SIGKILL" if rank == fault[0] else "", int(fault[-1] or 0))
    sys.argv = ["fusion", *words]
    status = cli.run()
    disturbance.ended = True
    Path(os.environ["FUSION_EVENTS"] + rank).write_text(str(disturbance.count))
    return status


def main(words: Sequence[str]) -> int:
    """Try so many; return how many went wrong."""
    from tests.faults.kills import Try, keep

    parser = argparse.ArgumentParser(prog="python -m tests.faults.ranks")
    parser.add_argument("number", nargs="?", type=int, default=3)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--log", type=Path, help="Each try is appended here as a line of JSON.")
    given = parser.parse_args(words)
    tiny, wrong = TinyRun(Path(tempfile.mkdtemp(prefix="ranks-"))), 0
    config = tiny.folder / tiny.config
    in_child(tiny.folder, lambda: write_config(config, **CHANGES))
    whole = torchrun(config)
    assert whole.returncode == 0, whole.stderr[-3000:]
    expected = results_in(tiny.run)
    events = [int((tiny.folder / f"events-{rank}").read_text()) for rank in range(2)]
    print(f"file events by process: {events}", flush=True)
    for number in range(given.first, given.first + given.number):
        rng, start = random.Random(f"ranks-{number}"), time.perf_counter()
        rank = rng.randrange(2)
        one = Try(number, "SIGKILL, torchrun", "run", f"process {rank} of 2, event {rng.randint(1, events[rank])}")
        shutil.rmtree(tiny.folder / "runs")
        torchrun(config, f"{rank}:{one.what.rsplit(' ', 1)[1]}")
        again = torchrun(config)
        if again.returncode:
            one.wrong.append(f"does not go on: {again.stderr[-1500:]}")
        else:
            found, left = results_in(tiny.run), unfinished_in(tiny.run)
            different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            one.wrong += [f"different: {different}"] * bool(different) + [f"left: {left}"] * bool(left)
        one.seconds, wrong = time.perf_counter() - start, wrong + bool(one.wrong)
        print(one, flush=True)
        keep(one, given.log)
    shutil.rmtree(tiny.folder, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    sys.exit(be_rank(sys.argv[2:]) if sys.argv[1:2] == ["rank"] else main(sys.argv[1:]) > 0)
