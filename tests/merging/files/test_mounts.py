"""Real mounts and real disks that fill, in a namespace of their own where there are such; and outputs that processes share.

Each script runs in a process of its own, which loads torch once and forks where it needs several.
"""

import json
import os
import subprocess
import sys

import pytest

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear
from tests.helpers.families import WEIGHTS, tree

NAMESPACE = ["unshare", "-rm"]
START = """
import json, os, subprocess, sys
from pathlib import Path
from fusion.merging.files import stream
from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear
from tests.helpers.families import WEIGHTS
folder, (base, *models) = Path(sys.argv[1]), [Path(sys.argv[1], name) for name in ("base", "m1", "m2", "m3")]
os.chdir(folder)
weights = (base / WEIGHTS).stat().st_size
def mount(*words): subprocess.run(["mount", *words], check=True)
def tmpfs(place, size): Path(place).mkdir(exist_ok=True); mount("-t", "tmpfs", "-o", f"size={size}", "none", str(place))
def attempt(out, method=Linear()):
    try: return "created" if merge(base, models, method, Path(out), threads=1).created else "there"
    except (OSError, ValueError) as error: return str(error)
def listed(place): return sorted(path.name for path in Path(place).iterdir())
said = {}
"""


def can_mount():
    try:
        script = "mount -t tmpfs none /tmp"
        return subprocess.run([*NAMESPACE, "sh", "-c", script], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def run_script(script, folder, *, mounts=True):
    words = [*(NAMESPACE if mounts else []), sys.executable, "-c", START + script + "\nprint(json.dumps(said))", folder]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mounting():
    if not can_mount():
        pytest.skip("unshare -rm cannot mount here")


MOUNTS = """
tmpfs("mount", "16m")
said["into"] = attempt("mount"), os.path.ismount("mount"), listed("mount"), (Path("mount") / WEIGHTS).read_bytes().hex()
said["again"] = attempt("mount")
mount("-o", "remount,ro", "mount")
said["read-only result"] = attempt("mount")
Path("bound").mkdir(); Path("there").mkdir(); mount("--bind", "there", "bound")
said["bound"] = attempt("bound"), listed("bound") == listed("there")
for name in ("base", "m1", "m2", "m3"):
    mount("--bind", name, name); mount("-o", "remount,bind,ro", name)
said["read-only inputs"] = attempt("from_read_only")
Path("same").mkdir(); mount("--bind", "m1", "same")
said["an input under another name"] = attempt("same")
tmpfs("ro", "1m"); Path("ro/empty").mkdir(); mount("-o", "remount,ro", "ro")
said["read-only"] = [attempt("ro/new"), attempt("ro/empty")]
said["beside"] = listed(".")
"""


def test_mount_points_are_filled_and_inputs_may_be_on_read_only_disks(mounting, family, tmp_path):
    expected = (merge(*family, Linear(), tmp_path / "whole").folder / WEIGHTS).read_bytes().hex()
    said = run_script(MOUNTS, tmp_path)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert said["into"] == ["created", True, names, expected]
    assert said["again"] == said["read-only result"] == "there"
    assert said["bound"] == ["created", True]
    assert said["read-only inputs"] == "created"
    assert "is the input" in said["an input under another name"]
    assert all(
        "Read-only file system" in sentence and str(tmp_path / "ro") in sentence for sentence in said["read-only"]
    )
    made = {"mount", "bound", "there", "from_read_only", "same", "ro", "whole"}
    assert set(said["beside"]) == {"base", "m1", "m2", "m3"} | made


FULL = """
tmpfs("small", weights - 4096)
said["look"] = attempt("small/out"), listed("small")
stream.check_space = lambda *_: None  # as if another had filled it in between
for out in ("small/out", "small"):
    mount("-o", f"remount,size={weights - 4096}", "small")
    said[out] = [attempt(out), Path(out, "config.json").exists()]
    mount("-o", "remount,size=16m", "small")
    said[out] += [attempt(out), (Path(out) / WEIGHTS).read_bytes().hex(), listed("small")]
    subprocess.run("rm -rf small/* small/.merge* small/.out*", shell=True, check=True)
"""


def test_a_disk_that_is_really_full_is_named_with_what_is_missing_and_the_same_merge_goes_on(
    mounting, family, tmp_path
):
    before = {folder: tree(folder) for folder in (family[0], *family[1])}
    expected = (merge(*family, Linear(), tmp_path / "whole").folder / WEIGHTS).read_bytes().hex()
    said = run_script(FULL, tmp_path)
    sentence, names = said["look"]
    assert f"{tmp_path / 'small'} has 0.0000" in sentence
    assert "GB are missing. Free some" in sentence
    assert names == []  # nothing was written
    for out in ("small/out", "small"):
        sentence, has_config, again, weights, names = said[out]
        assert f"The disk is full. {tmp_path / 'small'} has 0" in sentence
        assert "GB are missing. Free that, and run the same command again" in sentence
        assert not has_config
        assert (again, weights) == ("created", expected)
        assert names == (
            ["out"] if out == "small/out" else sorted(path.name for path in (tmp_path / "whole").iterdir())
        )
    assert before == {folder: tree(folder) for folder in (family[0], *family[1])}


RACES = """
import time
Path("sub").mkdir(); Path("link").symlink_to("out"); Path("sub/up").symlink_to("..")
NAMES = ("out", "link", "sub/../out", "sub/up/out")
def start(number, begin):
    if (pid := os.fork()) == 0:
        os.close(begin[1]); os.read(begin[0], 1)
        once = stream.CheckpointWriter.mark_written
        stream.CheckpointWriter.mark_written = lambda *words: (time.sleep(0.005), once(*words))
        answer = attempt(NAMES[(number + attempts) % 4], [Linear(), TIES()][number])
        Path(f"answer{number}.json").write_text(json.dumps([os.getpid(), answer])); os._exit(0)
    return pid
said = []
for attempts in range(8):
    begin = os.pipe()
    pids = [start(number, begin) for number in range(2)]
    os.close(begin[0]); os.close(begin[1])  # now both read the end of it
    for pid in pids: os.waitpid(pid, 0)
    kind = json.loads(Path("out/merge.json").read_text())["method"]["kind"]
    answers = [json.loads(Path(f"answer{number}.json").read_text()) for number in range(2)]
    said.append([kind, answers, (Path("out") / WEIGHTS).read_bytes().hex(), [n for n in listed(".") if n[0] == "."]])
    subprocess.run("rm -rf out", shell=True, check=True)
"""


def test_of_two_merges_into_one_folder_one_is_made_and_the_other_told_who_makes_it(family, tmp_path):
    made = [merge(*family, method, tmp_path / f"whole{number}") for number, method in enumerate((Linear(), TIES()))]
    expected = [(result.folder / WEIGHTS).read_bytes().hex() for result in made]
    tries = run_script(RACES, tmp_path, mounts=False)
    assert len(tries) == 8
    told = 0
    for kind, answers, weights, hidden in tries:
        winner = ["linear", "ties"].index(kind)
        assert weights == expected[winner]
        assert answers[winner][1] == "created"
        refusal = answers[1 - winner][1]
        told += f"out is being written by process {answers[winner][0]} on {os.uname().nodename} since 20" in refusal
        assert "is being written by" in refusal or "was merged with another method" in refusal
        assert hidden == []
    assert told >= 6  # seldom one is done before the other begins
