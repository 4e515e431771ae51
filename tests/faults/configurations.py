"""Spoiled configurations of every recipe, and spoiled study files, merge recipes and suites."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fusion.config import loading
from fusion.config.recipes import recipes, studies
from tests.faults.mutations import keys_of, shown, spoil_text, spoil_tree, words_of
from tests.faults.runner import Mutant
from tests.helpers import runs

ON_THE_HUB = {"smollm2_cpu", "real_skills", "code_and_stories"}
"""Recipes whose models and data would be downloaded to plan them."""
TEXT_SHARE = 0.1
"""How many are spoiled as texts rather than as values."""


def originals(folder: Path) -> dict[str, dict[str, Any]]:
    """Whole configurations by name: one over tiny models, and every recipe, with few examples."""
    found = {"tiny": runs.raw(folder)}
    for name in recipes():
        raw = loading.read(name)
        if name in ON_THE_HUB:
            continue
        if "plan" not in raw or "tokens" not in raw["plan"]:
            for one in [*raw["data"]["train"], *raw["data"]["heldout"]]:
                one["limit"] = 2
        found[name] = raw | {"runs": str(folder / "runs")}
    return found


def configurations(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion plan`: half of the tiny configuration, half of recipes."""
    known = originals(folder)
    while True:
        name = "tiny" if rng.random() < 0.5 else rng.choice(list(known))
        yield _tree_mutant("configuration", known[name], name, folder, rng, ["plan", "FILE"])


def study_files(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion study`, whose runs are checked and not made."""
    known = {name: yaml.safe_load(file.read_text()) for name, file in studies().items()}
    while True:
        name = rng.choice(list(known))
        yield _tree_mutant("study", known[name], name, folder, rng, ["study", "FILE"])


def merge_recipes(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion merge` over three tiny models, in our keys and mergekit's."""
    where = {name: str(folder / name) for name in ("base", "a", "b")}
    ours = {
        "base_model": where["base"],
        "models": [{"model": where["a"], "weight": 0.3, "density": 0.5}, {"model": where["b"], "weight": 0.6, "density": 1}],
        "method": {"kind": "ties"},
        "dtype": "float32",
        "vocabulary": "refuse",
    }  # fmt: skip
    theirs = {
        "merge_method": "dare_ties",
        "base_model": where["base"],
        "models": [
            {"model": where["a"], "parameters": {"weight": 0.3, "density": [0.5, 1]}},
            {"model": where["b"], "parameters": {"weight": [{"filter": "mlp", "value": 0.5}, {"value": 1}]}},
        ],
        "parameters": {"normalize": True, "int8_mask": True},
        "dtype": "bfloat16",
        "tokenizer_source": "base",
    }
    slices = {
        "merge_method": "slerp",
        "base_model": where["a"],
        "slices": [{"sources": [{"model": where[n], "layer_range": [0, 2]} for n in ("a", "b")]}],
        "parameters": {"t": 0.5},
    }
    linear = {"models": [where["a"], where["b"]], "method": {"kind": "linear", "weights": [0.5, {"layers": [0, 1]}]}}
    parts = {
        "merge_method": "linear",
        "base_model": where["base"],
        "slices": [
            {
                "sources": [
                    {"model": where["a"], "layer_range": [0, 1], "parameters": {"weight": [0.2, 0.4]}},
                    {"model": where["b"], "layer_range": [0, 1]},
                ],
                "parameters": {"weight": 0.7},
            },
            {"sources": [{"model": where[n], "layer_range": [1, 2]} for n in ("a", "b")], "base_model": where["base"]},
        ],
        "parameters": {"weight": [{"filter": "mlp", "value": [0, 0.5]}, {"value": 1}], "normalize": False},
        "tokenizer": {"source": "base"},
        "out_dtype": "float16",
    }
    known = {"ours": ours, "theirs": theirs, "slices": slices, "linear": linear, "parts": parts}
    number = 0
    while True:
        name, number = rng.choice(list(known)), number + 1
        words = ["merge", "FILE", "--threads", "1", "--out", str(folder / f"merged-{number}")]
        yield _tree_mutant("merge recipe", known[name], name, folder, rng, words)


def suite_files(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion benchmark`, whose models are not run."""
    suite = {"name": "mine", "template": "auto", "tasks": ["gsm8k", "mmlu"], "limit": {"gsm8k": 10}}
    while True:
        yield _tree_mutant(
            "suite", suite, "suite", folder, rng, ["benchmark", f"a={folder}/a", f"b={folder}/b", "--suite", "FILE"]
        )


def _tree_mutant(
    kind: str, original: dict[str, Any], name: str, folder: Path, rng: random.Random, words: list[str]
) -> Mutant:
    file = folder / f"{kind.replace(' ', '-')}.yaml"
    if rng.random() < TEXT_SHARE:
        text = yaml.safe_dump(original, allow_unicode=True, sort_keys=False)
        content, line, what = spoil_text(text, rng)
        names = (str(file), f"line {line}", *words_of(text, line))
        what = f"{name}, line {line}: {what}"
    else:
        tree, place, what = spoil_tree(original, rng)
        content, names = _dump(tree), (*keys_of(place), *shown(what))
        what = f"{name}, {'.'.join(map(str, place))}: {what}"

    def prepare(content: bytes = content) -> list[str]:
        file.write_bytes(content)
        return [str(file) if word == "FILE" else word for word in words]

    return Mutant(kind, what, prepare, names, (f"{kind} {name}", lambda: prepare(_dump(original))))


def _dump(tree: Any) -> bytes:
    text = yaml.safe_dump(tree, sort_keys=False)  # in ASCII: control characters and surrogates as escapes
    assert json.dumps(text).isascii()
    return text.encode()
