"""Merging three models of half a gigabyte, against mergekit and against copying the files: one table of ratios.

    python tests/benchmarks/merging.py --mergekit PYTHON [--folder DIR] [--repeats 5] [--size 1.0]

PYTHON is the interpreter of an environment of its own that has mergekit (it is no dependency):

    uv venv /tmp/mergekit && uv pip install --python /tmp/mergekit/bin/python mergekit
    python tests/benchmarks/merging.py --mergekit /tmp/mergekit/bin/python

Without it the table shows our own numbers and cp's. DIR needs 5 GB and is emptied of what was merged. Every measurement is a
process of its own; tools take turns, so that what else the machine does hits all alike; numbers are medians. CPU seconds
are user and system time of the process, "net" without what a process that only imports the tool takes. Memory is the
peak of the resident set above that of the import. Our times include the XXH3 of all inputs and waiting for the disk;
mergekit does neither.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

METHODS = {
    "linear": {"weight": [1.0, 1.0, 1.0]},
    "ties": {"weight": [1.0, 1.0, 1.0], "density": 0.6},
    "sce": {"select_topk": 0.1},
}
MODELS = ("base", "m1", "m2", "m3")
HIDDEN, INNER, HEADS, GROUPS, LAYERS, VOCABULARY = 1024, 2816, 16, 4, 20, 32000


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    wall: float
    cpu: float
    peak: float
    """Megabytes."""


def make(folder: Path, size: float) -> None:
    """A base and three models grown from it, bfloat16, about 0.58 GB each at size 1."""
    import torch
    from safetensors.torch import save_file

    layers = max(1, round(LAYERS * size))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "vocab_size": VOCABULARY,
        "hidden_act": "silu", "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    shapes["model.norm.weight"] = (HIDDEN,)
    narrow = HIDDEN * GROUPS // HEADS
    inside = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (narrow, HIDDEN), "self_attn.v_proj": (narrow, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
    }  # fmt: skip
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
    draw = torch.Generator().manual_seed(0)
    base = {name: (0.02 * torch.randn(shape, generator=draw)).bfloat16() for name, shape in shapes.items()}
    for name in MODELS:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        grown = base
        if name != "base":
            grown = {n: (t + 0.002 * torch.randn(t.shape, generator=draw)).bfloat16() for n, t in base.items()}
        save_file(grown, place / "model.safetensors", metadata={"format": "pt"})
        (place / "config.json").write_text(json.dumps(config))


def measured(command: list[str], out: Path | None = None) -> Cost:
    """Run it in a process of its own, after removing what it will write."""
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{said.decode()[-2000:]}")
    return Cost(time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def middle(costs: list[Cost]) -> Cost:
    """The median of each number."""
    return Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in ("wall", "cpu", "peak")))


def recipe(method: str, base: Path, parts: list[Path], file: Path) -> Path:
    """The merge in mergekit's words, which both tools read."""
    settings = METHODS[method]
    weights = settings.get("weight", [None] * len(parts))
    entries = [
        {"model": str(part), **({"parameters": {"weight": w}} if w else {})}
        for part, w in zip(parts, weights, strict=True)
    ]
    shared = {name: value for name, value in settings.items() if name != "weight"}
    raw = {"merge_method": method, "models": entries, "dtype": "bfloat16", "parameters": shared}
    if method != "linear":
        raw["base_model"] = str(base)
    file.write_text(yaml.safe_dump(raw))
    return file


MERGEKIT = (
    "import sys, yaml; from mergekit.config import MergeConfiguration; from mergekit.merge import MergeOptions, run_merge\n"
    "config = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1])))\n"
    "run_merge(config, sys.argv[2], options=MergeOptions(cuda=False, copy_tokenizer=False, lazy_unpickle=True))\n"
)
START = (  # as the command begins and ends, with nothing between
    "import gc, os; from fusion.cli import COLLECT_AFTER\n"
    "gc.set_threshold(COLLECT_AFTER)\n"
    "import fusion.cli.merge, fusion.merging.search\n"
    "os._exit(0)\n"
)
COPY = (
    "import os, sys, subprocess\n"
    "os.makedirs(sys.argv[1])\n"
    "subprocess.run(['cp', '-r', *sys.argv[2:], sys.argv[1]], check=True)\n"
    "subprocess.run(['sync', '-f', sys.argv[1]], check=True)\n"
)


HASH = "import hashlib, sys, xxhash\nfor file in sys.argv[1:]: hashlib.file_digest(open(file, 'rb'), xxhash.xxh3_128)\n"


def cold(folders: list[Path]) -> None:
    """Take the models out of the system's cache, so that they are read from the disk."""
    for file in (file for folder in folders for file in folder.glob("*.safetensors")):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def turns(commands: dict[str, list[str]], out: Path, repeats: int, chill: list[Path] | None = None) -> dict[str, Cost]:
    """The median cost of each command; they take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            if chill:
                cold(chill)
            costs[name].append(measured(command, out))
    shutil.rmtree(out, ignore_errors=True)
    return {name: middle(found) for name, found in costs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", help="python of an environment with mergekit")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fusion-merging-benchmark"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=float, default=1.0, help="1 is 0.58 GB a model")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--make", action="store_true", help="only make the models")
    options = parser.parse_args()
    if not options.make and not all((options.folder / name / "config.json").is_file() for name in MODELS):
        # in a process of its own: what this one has held counts in the peaks of all it starts
        subprocess.run([sys.executable, __file__, "--make", *sys.argv[1:]], check=True)
    if options.make:
        make(options.folder, options.size)
        return
    base, *parts = (options.folder / name for name in MODELS)
    out = options.folder / "out"
    fusion = [sys.executable, "-m", "fusion", "merge"]
    starts = {"import fusion": [sys.executable, "-c", START]}
    if options.mergekit:
        starts["import mergekit"] = [options.mergekit, "-c", MERGEKIT.splitlines()[0]]
    print(
        f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before, medians of {options.repeats}"
    )
    starts["XXH3 of the models"] = [sys.executable, "-c", HASH, *(str(part / "model.safetensors") for part in parts)]
    started = turns(starts, out, options.repeats)
    print(f"{'':24}{'wall s':>8}{'CPU s':>8}{'net CPU':>9}{'peak MB':>9}{'over import':>13}")
    for name, cost in started.items():
        print(f"{name:24}{cost.wall:8.2f}{cost.cpu:8.2f}{'':9}{cost.peak:9.0f}")
    for method in options.methods:
        file = recipe(method, base, parts, options.folder / f"{method}.yaml")
        commands = {"fusion": [*fusion, str(file), "--out", str(out)]}
        if options.mergekit:
            commands["mergekit"] = [options.mergekit, "-c", MERGEKIT, str(file), str(out)]
        found = turns(commands, out, options.repeats)
        for name, cost in found.items():
            start = started[f"import {name}"]
            net, over = cost.cpu - start.cpu, cost.peak - start.peak
            print(f"{method + ' ' + name:24}{cost.wall:8.2f}{cost.cpu:8.2f}{net:9.2f}{cost.peak:9.0f}{over:13.0f}")
        if options.mergekit:
            ours, theirs = found["fusion"], found["mergekit"]
            net = (theirs.cpu - started["import mergekit"].cpu) / (ours.cpu - started["import fusion"].cpu)
            print(
                f"{method + ', mergekit / fusion':24}{theirs.wall / ours.wall:8.1f}{theirs.cpu / ours.cpu:8.1f}{net:9.1f}"
            )
    file = recipe("linear", base, parts, options.folder / "linear.yaml")
    commands = {
        "cp and sync": [sys.executable, "-c", COPY, str(out), *map(str, parts)],
        "fusion linear": [*fusion, str(file), "--out", str(out)],
    }
    for word, chill in (("cached", None), ("from disk", parts)):
        found = turns(commands, out, options.repeats, chill)
        ratio = found["fusion linear"].wall / found["cp and sync"].wall
        print(
            f"{word}: cp and sync {found['cp and sync'].wall:.2f} s, linear {found['fusion linear'].wall:.2f} s: {ratio:.2f}"
        )
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
