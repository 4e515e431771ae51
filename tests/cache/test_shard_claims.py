"""Processes that fill one cache together: real ones, killed and started again in another number."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time

import torch

from fusion.cache import Cache, CacheWriter, shard_claims, write_missing_shards
from fusion.core.rows import LogitRows
from fusion.runtime import unfinished
from fusion.runtime.syncing import sync

IDS = [f"id{i:02d}" for i in range(24)]


def writer_of(folder, shard=2):
    return CacheWriter(folder, {"model": "abc"}, IDS, shard, "float32", vocabulary=500)


def rows_of(ids):
    """Two rows an example, which tell whose they are."""
    number = torch.tensor([int(id[2:]) for id in ids]).repeat_interleave(2)
    example = torch.arange(len(ids)).repeat_interleave(2)
    values = -1.0 * number
    return LogitRows(
        values[:, None],
        number[:, None],
        values.clone(),
        values.clone(),
        -values,
        prefix=torch.arange(len(values)) % 2,
        example=example,
    )


def work(folder, log, hang):
    """What one process does: note each shard it begins, and stay at shard `hang` for ever."""
    writer = writer_of(folder)

    def make(number):
        with log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(600 if number == hang else 0.05)
        return rows_of(writer.examples(number))

    write_missing_shards(writer, make, pause=0.05)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])
"""One process imports torch for all that are started here; it has no threads, as this one may."""


def started(target, *arguments):
    process = FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def start(folder, log, hang=-1):
    return started(work, folder, log, hang)


def ended(process, seconds=120):
    """Its exit code, once it ends."""
    process.join(seconds)
    return process.exitcode


def begun(log):
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def until(holds, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing happened for too long"
        time.sleep(0.02)


def test_one_process_alone_writes_all_and_leaves_no_claims(tmp_path):
    writer = writer_of(tmp_path)
    cache = write_missing_shards(writer, lambda number: rows_of(writer.examples(number)))
    assert cache.rows(IDS[3:5]).ids.flatten().tolist() == [3, 3, 4, 4]
    assert not [name for name in files(tmp_path) if "claims" in name or name.endswith(".part")]


def test_a_killed_process_loses_its_shard_alone_and_any_number_of_others_go_on(tmp_path):
    alone = writer_of(tmp_path / "alone")
    write_missing_shards(alone, lambda number: rows_of(alone.examples(number)))
    folder, logs = tmp_path / "shared", [tmp_path / f"log{n}" for n in range(5)]
    first = start(folder, logs[0], hang=1)  # goes on to shard 1 and stays there
    until(lambda: 1 in begun(logs[0]))
    second = start(folder, logs[1], hang=7)
    until(lambda: 7 in begun(logs[1]))  # it has passed over the shard that the first is at
    assert 1 not in begun(logs[1])
    for process in (first, second):
        process.kill()
        process.join()
    (folder / f"shard-00001-of-00012.safetensors.{unfinished.host()}-00000000.part").write_bytes(b"half")
    assert writer_of(folder).missing() == [1, 7, 8, 9, 10, 11]
    others = [start(folder, log) for log in logs[2:]]
    assert [ended(process) for process in others] == [0, 0, 0]
    assert sorted(number for log in logs[2:] for number in begun(log)) == [1, 7, 8, 9, 10, 11]
    assert files(folder) == files(tmp_path / "alone")


def test_a_shard_that_is_being_written_is_not_taken_for_a_dead_process_s(tmp_path, monkeypatch):
    """safetensors writes a file of its own and puts it in the place of the one it was given."""
    sweep = f"remove_abandoned(Path({str(tmp_path)!r}))"
    code = f"from pathlib import Path; from fusion.runtime.unfinished import remove_abandoned; {sweep}"

    def sweep_and_sync(path):
        subprocess.run([sys.executable, "-c", code], check=True)
        sync(path)

    monkeypatch.setattr("fusion.cache.writer.sync", sweep_and_sync)
    writer = writer_of(tmp_path, shard=12)
    assert write_missing_shards(writer, lambda number: rows_of(writer.examples(number))).known_fields.rows == 48
    assert {name for name in files(tmp_path) if "part" in name or name.startswith(".")} == set()


def test_the_last_one_waits_for_a_shard_and_takes_it_up_when_its_process_dies(tmp_path):
    slow = start(tmp_path / "c", tmp_path / "slow", hang=0)
    until(lambda: 0 in begun(tmp_path / "slow"))
    other = start(tmp_path / "c", tmp_path / "other")
    until(lambda: len(begun(tmp_path / "other")) == 11)
    time.sleep(0.5)
    assert other.is_alive(), "it went away although shard 0 is not written"
    slow.kill()
    assert ended(other) == 0
    assert begun(tmp_path / "other")[-1] == 0
    assert Cache(tmp_path / "c").known_fields.rows == 48


def test_progress_hears_of_what_others_write(tmp_path):
    writer, other, heard = writer_of(tmp_path), writer_of(tmp_path), []

    def make(number):
        if number == 0:
            for n in (4, 7):
                other.write(n, rows_of(other.examples(n)))
        return rows_of(writer.examples(number))

    write_missing_shards(writer, make, heard.append)
    assert heard == [4, 7]


def test_a_file_system_without_locks_costs_work_twice_and_nothing_else(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(shard_claims.fcntl, "lockf", no_locks)
    writer = writer_of(tmp_path)
    assert write_missing_shards(writer, lambda number: rows_of(writer.examples(number))).known_fields.rows == 48


CLAIMED, REFUSED = 10, 20


def ask(folder):
    sys.exit(CLAIMED if shard_claims.ShardClaims(folder).claim(3) else REFUSED)


def test_a_claim_ends_when_it_is_given_back(tmp_path):
    claims = shard_claims.ShardClaims(tmp_path)
    assert claims.claim(3)
    assert ended(started(ask, tmp_path)) == REFUSED
    claims.release(3)
    assert ended(started(ask, tmp_path)) == CLAIMED


def test_an_extraction_that_raises_gives_its_claims_back_while_its_traceback_lives(tmp_path):
    def fails(_):
        raise ValueError("no such model")

    try:
        write_missing_shards(writer_of(tmp_path), fails)
    except ValueError as error:
        kept = error  # as a Python session does
    other = start(tmp_path, tmp_path / "log")
    assert ended(other) == 0
    assert str(kept) == "no such model"


def test_whoever_waits_says_for_whom(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shard_claims, "SECONDS_BETWEEN_NOTES", 0.2)
    slow = start(tmp_path, tmp_path / "slow", hang=0)
    until(lambda: 0 in begun(tmp_path / "slow"))
    monkeypatch.setattr(shard_claims, "show", lambda lines: [said.append(*lines), slow.kill()])
    said, writer = [], writer_of(tmp_path)
    write_missing_shards(writer, lambda number: rows_of(writer.examples(number)), pause=0.05)
    assert f"waiting for shard 0, claimed by process {slow.pid} on " in said[0]


def hold(folder, holds, ends):
    claims = shard_claims.ShardClaims(folder)
    assert claims.claim(3)
    holds.set()
    ends.wait(60)


def test_claims_that_a_process_left_behind_the_last_shard_are_removed_unless_one_is_held(tmp_path):
    writer = writer_of(tmp_path)
    write_missing_shards(writer, lambda number: rows_of(writer.examples(number)))
    (tmp_path / "claims").touch()
    writer_of(tmp_path)
    assert not (tmp_path / "claims").exists()
    holds, ends = FORKS.Event(), FORKS.Event()
    holder = started(hold, tmp_path, holds, ends)
    assert holds.wait(60)
    writer_of(tmp_path)
    assert (tmp_path / "claims").exists()
    ends.set()
    assert ended(holder) == 0
