"""Kills, full disks, damage and misbehaving servers at a few seeded moments; the long series are run by hand."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from tests.faults import every_event, kills, reliability
from tests.faults.tiny_run import TinyRun, in_child, unfinished_in


def series(module, *words):
    command = [sys.executable, "-m", f"tests.faults.{module}", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    )


def test_a_run_that_is_killed_or_damaged_or_has_no_disk_left_goes_on_to_the_same_bytes():
    done = series("kills", "3", "--from", "3")  # a kill in extract, an end in merge, a kill in extract
    assert "3 tries, 0 wrong" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    assert done.returncode == 0


def test_distinct_events_are_tried_in_order_where_the_log_ends(tmp_path):
    log = tmp_path / "log.jsonl"
    first = kills.Try(0, every_event.KIND, "respond", "first open .")
    kills.keep(first, log)
    done = series("every_event", "3", "--stage", "respond", "--log", str(log))
    assert "3 tries, 0 wrong" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    tried = [json.loads(line)["what"] for line in log.read_text().splitlines()]
    assert tried == ["first open .", "first mkdir runs/small", "first mkdir runs", "first open config.yaml.#-#.part"]


@pytest.mark.slow
def test_forty_faults_lose_nothing():
    done = series("kills", "40", "--from", "1000")
    assert "40 tries, 0 wrong" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_two_rounds_that_are_killed_at_ten_moments_end_with_the_same_weights():
    done = series("kills", "10", "--only", "SIGKILL", "--stage", "rounds", "--rounds")
    assert "10 tries, 0 wrong" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    assert done.stdout.count("SIGKILL rounds") == 10


@pytest.mark.slow
def test_one_source_that_answers_the_rest_alone_may_be_killed():
    done = series("every_event", "--unlabelled", "--stage", "respond")
    assert ", 0 wrong" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    assert "-unlabelled" in done.stdout


@pytest.mark.slow
def test_whatever_a_server_does_the_cache_is_the_same_in_the_end():
    done = series("servers", "22")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert done.stdout.count(" server ") == 22


@pytest.mark.slow
def test_one_of_two_ranks_that_is_killed_costs_nothing():
    done = series("ranks", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_report_verify_and_plan_of_a_run_that_goes_on_show_no_traceback(tmp_path):
    words = [sys.executable, "-c", f"import tests.faults.watching as w; w.main({str(tmp_path)!r})"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "looked" in done.stdout


@pytest.fixture
def tiny(tmp_path):
    """Two states of a run that are folders with a file."""
    run = TinyRun(tmp_path)
    for state in (run.before("done"), run.run):
        (state / "cache").mkdir(parents=True)
        (state / "cache/shard").write_text("whole")
    return run


def test_equal_folders_are_right_and_a_changed_file_or_a_leftover_is_wrong(tiny):
    assert kills.differences(tiny, "done") == []
    (tiny.run / "cache/shard").write_text("Whole")
    assert kills.differences(tiny, "done") == ["different: ['cache/shard']"]
    (tiny.run / "cache/shard").write_text("whole")
    for name in ("claims", "key.json.0-0.part", ".fused.0-0", "lock", "damaged-checkpoint-2"):
        (tiny.run / name).touch()
        assert unfinished_in(tiny.run) == [name]
        assert kills.differences(tiny, "done") != []
        (tiny.run / name).unlink()


@pytest.mark.parametrize("kind", kills.DAMAGE)
def test_damage_changes_a_file(tmp_path, kind):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    kills.harm(file, kind, random.Random(1))
    assert not file.exists() if kind == "gone" else file.read_bytes() != b"content"


def test_a_traceback_and_silence_are_wrong_and_a_sentence_is_not():
    told = {"said": "Error: no room.\n", "escaped": "None"}
    assert kills.sentence(told, []) == ("no room.", [])
    assert kills.sentence({"said": "Traceback (most recent call last)", "escaped": "None"}, [])[1]
    assert kills.sentence({"said": "", "escaped": "None"}, [])[1]
    assert kills.sentence({}, [])[1]


def test_events_of_one_name_differ_in_numbers_hashes_models_and_trainings_alone(tmp_path):
    def name(event, *paths, at=-1):
        absolute = [tmp_path / "runs/small" / path for path in paths]
        return every_event.event_name(event, (*absolute, at, -1), tmp_path)

    assert (
        name("open", "cache/neox/shard-1-of-4")
        == name("open", "cache/qwen/shard-3-of-4")
        == "open cache/MODEL/shard-#-of-#"
    )
    assert name("os.mkdir", "train/unified/checkpoint-1") == name("os.mkdir", "train/pairwise/neox/checkpoint-12")
    assert name("os.rename", "run.json.0a1b2c3d-ffffffff.part", "run.json") == "rename run.json.#-#.part to run.json"
    assert name("os.rename", "a", "b") != name("os.rename", "a", "c")
    assert name("os.remove", "a") != name("os.rmdir", "a")


def writes(root, name="", number=0):
    """Do a few things with files in a child that keeps their names, or is killed at one; return what it kept."""

    def body():
        events = every_event.NamedEvents(root, name, number)
        root.mkdir(exist_ok=True)  # it is there
        (root / "new").mkdir()
        for _ in range(2):
            with (root / "file").open("a") as file, os.fdopen(os.dup(file.fileno()), "a"):
                file.write("x")
                file.flush()
                os.fsync(file.fileno())
                os.fsync(file.fileno())
        shutil.rmtree(root / "new")
        events.ended = True
        return {"names": events.names}

    return in_child(root, body)


def test_what_changes_nothing_is_no_event(tmp_path):
    writing = ["open file", "fsync file"]
    assert writes(tmp_path)["names"] == ["mkdir new", *writing, *writing, "rmdir new"]


def test_a_process_is_killed_right_before_an_event_of_a_name_and_number(tmp_path):
    assert writes(tmp_path, "open file", 2) == {}
    assert (tmp_path / "file").read_text() == "x"
    assert (tmp_path / "new").exists()


def test_of_an_event_that_comes_again_the_first_and_the_last_are_tried():
    found = every_event.distinct("train", ["open a", "open b", "open a", "open a"])
    assert [(event.what, event.number) for event in found] == [
        ("first open a", 1),
        ("first open b", 1),
        ("last open a", 3),
    ]


def test_the_page_counts_what_went_wrong():
    one = {"number": 1, "kind": "full", "stage": "train", "what": "event 3", "said": "", "wrong": [], "seconds": 1}
    text = reliability.page([one, one | {"wrong": ["different: ['fused']"]}], [])
    assert "| train (2) | 2 | 1 | none | kills |" in text
    assert "**2 tries, 1 wrong.**" in text


def test_the_page_has_a_row_for_every_event_and_the_command_that_goes_on(tmp_path):
    log, file = tmp_path / "log.jsonl", tmp_path / "page.md"
    for number, stage in enumerate(("respond", "rounds", "rounds")):
        kills.keep(kills.Try(number, every_event.KIND, stage, "first open a"), log)
    reliability.main([str(log), "--write", str(file)])
    assert (
        "at every distinct file event, once | respond (1), rounds (2) | 3 | 0 | none | every_event |"
        in file.read_text()
    )
    assert "    python -m tests.faults.every_event --rounds --log FILE\n" in file.read_text()


def test_the_page_counts_a_series_and_gives_its_command(tmp_path, capsys):
    for number, name in enumerate(("plain", "series")):
        kills.keep(kills.Try(number, "SIGKILL", "rounds", "event 3"), tmp_path / name)
    reliability.main([str(tmp_path / "plain"), "--series", "kills 1 --rounds --from 7", str(tmp_path / "series")])
    text = capsys.readouterr().out
    assert "at a file event | rounds (2) | 2 | 0 | none | kills |" in text
    assert "    python -m tests.faults.kills 1 --log FILE\n" in text
    assert "    python -m tests.faults.kills 1 --rounds --from 7 --log FILE\n" in text
