"""The command `fusion merge` for recipes: read, say what it takes, search for weights if asked, merge.

A merge alone imports neither transformers nor a tokenizer, so that it starts in seconds; a search does.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fusion.merging.files.stream import Merged, merge
from fusion.merging.methods.base import Weighted
from fusion.merging.recipes.recipe import Recipe
from fusion.merging.search import Search, Weights, search
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import console, counter

if TYPE_CHECKING:
    from fusion.data.datasets import Example

TRIALS = "search.json"


def from_arguments(
    method: str, base: Path | None, models: Sequence[str], settings: Sequence[str], **others: Any
) -> dict[str, Any]:
    """The keys of a recipe from the words of a command line: `A:0.3` is a model and its weight, `density=0.5` a setting."""
    import yaml

    chosen: dict[str, Any] = {"kind": method}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write it as name=value, for example density=0.5.")
        chosen[name] = yaml.safe_load(value)
    found = {
        "base": str(base) if base else None,
        "models": [_model(word) for word in models],
        "method": chosen,
        **others,
    }
    return {name: value for name, value in found.items() if value is not None}


def run(recipe: Recipe, out: Path, threads: int | None = None) -> Merged:
    """Merge as the recipe says, into `out`; with a search first, where it asks for one."""
    if recipe.search is None:
        return _merge(recipe, out, threads)
    file, wanted = out / TRIALS, recipe.model_dump(mode="json")
    if file.is_file():
        import json

        if json.loads(file.read_text())["recipe"] == wanted:
            console.print(f"{out} was searched and merged from this recipe; nothing to do.")
            return Merged(out, made=False)
    trials = chosen(recipe, recipe.search, out, threads)
    best = min(trials, key=lambda weights: trials[weights])
    console.print(f"Best of {len(trials)} merges: {_written(best)} with {trials[best]:.4f} bits per byte.")
    merged = _merge(recipe.with_weights(best), out, threads)
    tried = [{"weights": weights, "bits_per_byte": score} for weights, score in trials.items() if score < math.inf]
    write_json(file, {"recipe": wanted, "best": best, "tried": tried})
    return merged


def chosen(recipe: Recipe, how: Search, out: Path, threads: int | None) -> dict[Weights, float]:
    """Bits per byte on the validation data of every merge that was tried; inf where a method refuses the weights.

    Raises ValueError where validation data are test data.
    """
    examples, trial = validation(how), out.with_name(f".{out.name}.trial")

    def score(weights: Weights) -> float:
        shutil.rmtree(trial, ignore_errors=True)
        try:
            candidate = recipe.with_weights(weights)
        except ValueError:  # such as a negative weight in an election
            return math.inf
        _merge(candidate, trial, threads, quiet=True)
        bits = bits_per_byte(trial, examples)
        console.print(f"  {_written(weights)}   {bits:.4f} bits per byte")
        return bits

    try:
        return search(score, start(recipe), how.how).tried
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def start(recipe: Recipe) -> list[float]:
    """Where a search begins: the weights of the recipe, or those the method would take. Raises ValueError without any."""
    method, models = recipe.settled(), len(recipe.models)
    if isinstance(method, Weighted):
        numbers = method.shares(models) if method.weights is None else method.weights
    elif "t" in type(method).model_fields:
        numbers = [getattr(method, "t")]  # noqa: B009
    else:
        raise ValueError(f"{method.name} has no weights to search for; leave search out.")
    settled = [float(number) for number in numbers if isinstance(number, (int, float))]
    if len(settled) < len(numbers):
        raise ValueError("A search starts from one number a model; leave out weights that differ by layer or tensor.")
    return settled


def validation(how: Search) -> list[Example]:
    """The examples weights are chosen on. Raises ValueError where one of them is among the test data."""
    examples = _examples("validation", how.validation)
    if how.test is not None:
        tested = {example.id for example in _examples("test", how.test)}
        if both := sum(example.id in tested for example in examples):
            raise ValueError(
                f"search: {both} of {len(examples)} validation examples are test examples too; take others."
            )
    return examples


def bits_per_byte(model: Path, examples: Sequence[Example]) -> float:
    """Of the responses, over all examples."""
    from fusion.models.loading import ModelRef
    from fusion_eval.runners import heldout

    items = heldout.score(ModelRef(str(model)), examples, "auto", heldout.Settings(), lambda units: None)
    nats = [item.nats for item in items if item.nats is not None]  # held-out examples always have one
    return sum(nats) / math.log(2) / sum(item.bytes for item in items)


def _examples(part: str, data: dict[str, Any]) -> list[Example]:
    from fusion.config import DataSettings
    from fusion.data.datasets import load

    try:
        settings = DataSettings.model_validate({"domain": part} | data)
    except ValidationError as error:
        mistakes = [f"search.{part}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError("\n".join(mistakes)) from None
    if part == "validation" and settings.split == "test":
        raise ValueError(f"search: {settings.path} would be searched on its split `test`; choose on other data.")
    return load(**settings.reading)


def _merge(recipe: Recipe, out: Path, threads: int | None, *, quiet: bool = False) -> Merged:
    base, models = Path(recipe.base) if recipe.base else None, [Path(model.path) for model in recipe.models]
    method, dtype, vocabulary = recipe.settled(), recipe.dtype, recipe.vocabulary
    with nullcontext() if quiet else counter(f"merge by {method.name}") as progress:
        return merge(base, models, method, out, dtype=dtype, vocabulary=vocabulary, threads=threads, progress=progress)


def _model(word: str) -> dict[str, Any]:
    path, colon, weight = word.rpartition(":")
    try:
        return {"path": path, "weight": float(weight)} if colon else {"path": word}
    except ValueError:
        return {"path": word}


def _written(weights: Weights) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)
