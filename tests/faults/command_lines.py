"""Spoiled command lines of every subcommand. What would take minutes, or start something elsewhere, is cut short."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer
import yaml

from fusion.study import StudyGrid
from tests.faults.runner import Mutant, run
from tests.helpers import runs

OVERRIDES = [
    "=", "", "a", "=3", "a.b.c=3", "pivot=3", "sources=", "data.train.99.path=x", "data.train.0=[", "objectives.0.kind=nope",
    "name=../x", "name=", "runs=/dev/null", "extract.top_k=all", "extract.top_k=-1", "training=nope", "training.max_steps=1e99",
    "training.seed=abc", "sources.neox.path=nope/nope", "sources.neox.path=/dev/null", "seed=NaN", "pivot.path=", "a=\ud800",
    "training.max_steps=!!python/object:os.system", "x=&a [*a]", "pivot.path=[1]", "data.train.-1.path=x", ".=3", "..=3",
]  # fmt: skip
NUMBERS = ["-1", "0", "1e99", "nan", "abc", "9" * 30, "1.5", ""]
OPTIONS = ["--nope", "--nope=3", "-x", "--", "--set", "--config", "--gpus=x", "--out", "---", "-"]


def shorten() -> AbstractContextManager[Any]:
    """Cut short what runs benchmarks, trains drafts, makes the runs of a study, or launches."""

    def done(*_: Any, **__: Any) -> None:
        raise typer.Exit(0)

    def check(grid: StudyGrid, *_: Any) -> None:
        grid.check()

    stack = ExitStack()
    stack.enter_context(
        patch("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    )  # a name that is wrong is not looked up
    for name in ("fusion_eval.runners.benchmark.benchmark", "fusion.extras.draft.train_and_measure.train_and_measure"):
        stack.enter_context(patch(name, done))
    stack.enter_context(patch("fusion_launch.execute", lambda *_: 0))
    stack.enter_context(patch("fusion.study.run", check))
    return stack


def done_run(folder: Path) -> Path:
    """The configuration of a run in `folder`/runs/small that is done up to its report, whose files no stage reads."""
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(runs.raw(folder)))
    status, _, said, _ = run(["evaluate", str(config)])
    assert status == 0, said
    return config


def commands(folder: Path) -> dict[str, list[str]]:
    """A command line that works, for every subcommand; makes a whole run."""
    config = done_run(folder)
    small, models = str(folder / "runs/small"), {name: str(folder / name) for name in ("pivot", "base", "a", "b")}
    recipe, page, hosts, imported = (folder / name for name in ("recipe.yaml", "page.md", "hosts", "imported.yaml"))
    page.write_text("<!-- study answers -->\n<!-- end -->\n")
    hosts.write_text("node1 slots=8\n")
    backend = {"name": "neox", "path": str(folder / "neox"), "backend": {"kind": "imported"}}
    imported.write_text(yaml.safe_dump(runs.raw(folder) | {"sources": [backend], "name": "imported"}))
    recipe.write_text(
        yaml.safe_dump({"models": [models["a"], models["b"]], "method": {"kind": "linear", "weights": [1, 2]}})
    )
    on_config = {
        name: [name, str(config)] for name in ("run", "respond", "extract", "train", "evaluate", "plan", "merge")
    }
    return on_config | {
        "plan gpus": ["plan", "infifusion_unified_14b", "--gpus", "16", "--gpu", "a100", "--mfu", "0.5"],
        "plan set": ["plan", str(config), "--set", "seed=3"],
        "inspect": ["inspect", str(config), "--alignment", "--rescaling", "0.5", "--classes", "2", "--concepts", "mlp"],
        "launch": ["launch", str(config), "--on", "local", "--gpus", "1", "--dry-run"],
        "launch slurm": ["launch", str(config), "--on", "slurm", "--gpus", "2", "--nodes", "2", "--option", "partition=x"],
        "launch hosts": ["launch", str(config), "--on", "deepspeed", "--hostfile", str(hosts), "--head", "x:1"],
        "report": ["report", small],
        "cache show": ["cache", "show", f"{small}/cache/neox"],
        "cache verify": ["cache", "verify", f"{small}/cache/neox"],
        "cache audit": ["cache", "audit", f"{small}/cache/neox", "--rows", "8", "--model", models["pivot"], "--softcap", "3"],
        "cache import": [
            "cache", "import", str(folder / "train.jsonl"), "--format", "jsonl", "--config", str(imported), "--source", "neox",
            "--codec", str(config), "--tokens", str(folder / "train.jsonl"), "--out", str(folder / "imported"),
        ],
        "merge models": [
            "merge", "--method", "ties", "--base-model", models["base"], f"{models['a']}:0.3", f"{models['b']}:0.6",
            "--set", "density=0.5", "--dtype", "float32", "--vocabulary", "pad", "--threads", "1", "--out", str(folder / "m1"),
        ],
        "merge recipe": ["merge", str(recipe), "--out", str(folder / "m2")],
        "draft": [
            "draft", models["pivot"], "--data", str(folder / "train.jsonl"), "--out", str(folder / "d"), "--heldout", "2",
            "--limit", "8", "--max-length", "64", "--set", "epochs=1",
        ],
        "benchmark": [
            "benchmark", f"x={models['pivot']}", f"y={models['a']}", "--suite", "quick", "--limit", "2", "--guard", "x",
            "--baseline", "x", "--fusion-data", str(folder / "train.jsonl"), "--ngram", "3", "--out", str(folder / "e"),
        ],
        "study": ["study", "answers", "--set", "seed=1", "--jobs", "1", "--write", str(page)],
        "recipes": ["recipes"],
        "schema": ["schema"],
    }  # fmt: skip


def bad_paths(folder: Path) -> list[str]:
    """Paths of what nobody can read as what it should be."""
    made: dict[str, Callable[[Path], Any]] = {
        "empty": lambda file: file.write_bytes(b""),
        "binary": lambda file: file.write_bytes(bytes(range(256)) * 8),
        "list.yaml": lambda file: file.write_text("- 1\n- 2\n"),
        "deep.yaml": lambda file: file.write_text("[" * 5000),
        "broken.jsonl": lambda file: file.write_text('{"prompt": '),
        "a-folder": lambda file: file.mkdir(exist_ok=True),
        "zip.gguf": lambda file: file.write_bytes(b"PK\x03\x04" + bytes(100)),
        "broken.gz": lambda file: file.write_bytes(b"\x1f\x8b\x08\x00abc"),
        "endless": lambda file: file.is_symlink() or file.symlink_to(file),
    }
    for name, make in made.items():
        make(folder / name)
    absent = str(folder / "absent")
    return [
        *(str(folder / name) for name in made),
        absent,
        "/dev/null",
        "x" * 300,
        "/proc/self/mem",
        str(folder / "empty/x"),
        "\udcff",
    ]


def command_lines(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants, each of one command line that works."""
    known, paths = commands(folder), bad_paths(folder)
    while True:
        name = rng.choice(list(known))
        yield _mutant(name, known[name], paths, rng)


def _mutant(name: str, words: list[str], paths: list[str], rng: random.Random) -> Mutant:
    words, first = list(words), 2 if words[0] == "cache" else 1
    what = rng.choice(["path", "path", "number", "override", "option", "drop", "twice", "misspell"])
    place = rng.randrange(first, len(words)) if len(words) > first else None
    names: tuple[str, ...] = ()
    if what in ("path", "number") and place is not None:
        old, new = words[place], rng.choice(paths if what == "path" else NUMBERS)
        words[place] = new
        names = tuple(
            filter(None, (new, old.lstrip("-"), words[place - 1] if words[place - 1].startswith("--") else ""))
        )
    elif what == "drop" and place is not None:
        dropped, after = words.pop(place), words[place - 1 : place + 1]
        names = (dropped, "Missing argument", "requires an argument", "unexpected extra", *after)
    elif what == "twice" and place is not None:
        words.insert(place, words[place])
    elif what == "misspell" and place is not None and len(words[place]) > 2:
        words[place] = words[place][:-2] + words[place][-1]
        names = (words[place], words[place][:-1])
    elif what == "override":
        new = rng.choice(OVERRIDES)
        words += ["--set", new]
        names = (new, "--set", new.partition("=")[0].rpartition(".")[2])
    else:
        new = rng.choice(OPTIONS)
        words.append(new)
        names = (new.partition("=")[0],)
    return Mutant("command line", f"{what}: {' '.join(words)}", lambda: words, names)
