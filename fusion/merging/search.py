"""Merge weights chosen by a search: every candidate is merged and scored in bits per byte on validation examples."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.core.markdown import with_home
from fusion.core.text_files import read_object
from fusion.merging.files.output_folder import OutputFolder
from fusion.merging.files.stream import MergeResult, merge
from fusion.merging.methods.base import WeightedMethod
from fusion.merging.recipes.merge_recipe import MergeRecipe
from fusion.merging.recipes.search_settings import GridSearch, NelderMead
from fusion.runtime.console import console, counter
from fusion.runtime.distributed import device

if TYPE_CHECKING:
    from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat

SEARCH_RECORD = "search.json"
MergeWeights = tuple[float, ...]
"""One weight per model; for slerp its `t` alone."""


@dataclass
class SearchTrials:
    """Weights that were tried, in order, with their scores; lower is better. Calling it scores weights, each only once."""

    score: Callable[[MergeWeights], float]
    scores: dict[MergeWeights, float] = field(default_factory=dict)

    def __call__(self, weights: Sequence[float]) -> float:
        """Score these weights, rounded to six digits."""
        key = tuple(round(float(weight), 6) for weight in weights)
        if key not in self.scores:
            self.scores[key] = self.score(key)
        return self.scores[key]

    @property
    def best(self) -> MergeWeights:
        """The first of those with the lowest score."""
        return min(self.scores, key=lambda weights: self.scores[weights])


def minimize_score(
    score: Callable[[MergeWeights], float], initial: Sequence[float], algorithm: GridSearch | NelderMead
) -> SearchTrials:
    """Try weights as the algorithm says. The initial ones are always tried, so that the best is never worse than these."""
    trials = SearchTrials(score)
    trials(initial)
    if isinstance(algorithm, GridSearch):
        for weights in itertools.product(algorithm.values, repeat=len(initial)):
            trials(weights)
        return trials
    from scipy.optimize import minimize

    step, size = algorithm.initial_step, len(initial)
    corners = [[w + step * (i == j) for j, w in enumerate(initial)] for i in range(size)]
    # one evaluation was spent on the initial weights
    limits = {"maxfev": algorithm.evaluations - 1, "xatol": 1e-3, "fatol": 1e-6}
    options = {"initial_simplex": [list(initial), *corners], **limits}
    minimize(lambda weights: trials(weights.tolist()), list(initial), method="Nelder-Mead", options=options)
    return trials


def merge_recipe(
    recipe: MergeRecipe,
    out: Path,
    *,
    threads: int | None = None,
    show_progress: bool = True,
    extra_files: Mapping[str, str] | None = None,
) -> MergeResult:
    """Merge as the recipe says, with the weights it has, into the folder `out`; see `stream.merge`."""
    base, models = (
        Path(with_home(recipe.base_model)) if recipe.base_model else None,
        [Path(with_home(entry.model)) for entry in recipe.models],
    )
    method = recipe.resolved_method()
    with counter(f"merge by {method.name}", "tensors") if show_progress else nullcontext() as progress:
        return merge(
            base, models, method, out, threads=threads, progress=progress, extra_files=extra_files, **recipe.options
        )


def is_searched(recipe: MergeRecipe, out: Path) -> bool:
    """Whether `out` is the finished result of a search with exactly this recipe; what it is measured on does not count."""
    file = out / SEARCH_RECORD
    return file.is_file() and read_object(file)["recipe"] == _searched(recipe)


def merge_again(recipe: MergeRecipe, out: Path, *, threads: int | None = None) -> MergeResult:
    """Merge with the weights of the search that `is_searched`: nothing is done where inputs and result are what they were.

    Raises FileExistsError where either has changed since.
    """
    best = read_object(out / SEARCH_RECORD)["best"]
    return merge_recipe(recipe.with_weights(best), out, threads=threads)


def search_and_merge(
    recipe: MergeRecipe, out: Path, validation: Sequence[Example], *, threads: int | None = None
) -> MergeResult:
    """Choose the weights with the fewest bits per byte on `validation`, and merge with them into `out`.

    All trials are kept in `search.json` there. Raises ValueError where the method has no weights to search for,
    FileExistsError where `out` holds something else, BlockingIOError where another process writes there.
    """
    output = OutputFolder.find(out, recipe.references)
    if output.has_result:
        raise FileExistsError(f"{out} holds a merge that this search did not make; give another folder, or remove it.")
    with output.lock():
        trials = search_weights(recipe, out, validation, threads=threads)
        best = trials.best
        console.print(
            f"Best of {len(trials.scores)} merges: {_listed(best)} with {trials.scores[best]:.4f} bits per byte."
        )
        finite = [{"weights": w, "bits_per_byte": score} for w, score in trials.scores.items() if score < math.inf]
        record = {"recipe": _searched(recipe), "best": best, "trials": finite}
        files = {SEARCH_RECORD: json.dumps(record, ensure_ascii=False, indent=1)}
        return merge_recipe(recipe.with_weights(best), out, threads=threads, extra_files=files)


def search_weights(
    recipe: MergeRecipe, out: Path, validation: Sequence[Example], *, threads: int | None = None
) -> SearchTrials:
    """Merge and score candidates, each in a hidden folder that is removed; inf where the method refuses the weights."""
    assert recipe.search is not None
    output = OutputFolder.find(out, recipe.references)
    trial = output.trial

    def score(weights: MergeWeights) -> float:
        output.discard_trial()
        try:
            candidate = recipe.with_weights(weights)
        except ValueError:  # such as a negative weight in an election
            return math.inf
        merge_recipe(candidate, trial, threads=threads, show_progress=False)
        bits = bits_per_byte(trial, validation)
        console.print(f"  {_listed(weights)}   {bits:.4f} bits per byte")
        return bits

    try:
        return minimize_score(score, initial_weights(recipe), recipe.search.algorithm)
    finally:
        output.discard_trial()


def initial_weights(recipe: MergeRecipe) -> list[float]:
    """Where a search starts: the recipe's weights, or the method's default ones. Raises ValueError without any."""
    method, count = recipe.resolved_method(), len(recipe.models)
    if isinstance(method, WeightedMethod):
        values = method.model_weights(count) if method.weights is None else method.weights
    elif "t" in type(method).model_fields:
        values = [getattr(method, "t")]  # noqa: B009
    else:
        raise ValueError(f"{method.name} has no weights to search for; leave search out.")
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    if len(numbers) < len(values):
        raise ValueError("A search starts from one number a model; leave out weights that differ by layer or tensor.")
    return numbers


def count_trials(recipe: MergeRecipe) -> int:
    """At most so many merges are tried by the recipe's search. Raises ValueError where the method has no weights to search."""
    assert recipe.search is not None
    algorithm, size = recipe.search.algorithm, len(initial_weights(recipe))
    return algorithm.evaluations if isinstance(algorithm, NelderMead) else len(algorithm.values) ** size + 1


def check_disjoint(validation: Sequence[Example], test: Sequence[Example]) -> None:
    """Raise ValueError where what weights are chosen on asks what results are reported on, whatever case and white space."""
    tested = {example.question: example for example in test}
    if both := [example for example in validation if example.question in tested]:
        places = f"{both[0].origin}; {tested[both[0].question].origin}"
        raise ValueError(
            f"search: {len(both)} of {len(validation)} validation examples are test examples too (the first: {places}). "
            "Weights chosen on what they are measured on look better than they are: take other rows for one of the two, for "
            "example with skip and limit."
        )


def bits_per_byte(model: Path, examples: Sequence[Example]) -> float:
    """Bits per byte of the examples' responses under the model in a folder, over all examples together."""
    from fusion.merging.evaluation.heldout_evaluation import format_of
    from fusion.models.loading import ModelRef
    from fusion_eval.runners import heldout

    settings, formats = heldout.HeldoutSettings(device=device()), [format_of(each, PromptFormat()) for each in examples]
    samples = heldout.score(ModelRef(str(model)), examples, formats, settings, progress=lambda units: None)
    nll = [sample.nll for sample in samples if sample.nll is not None]  # held-out examples always have one
    return sum(nll) / math.log(2) / sum(sample.bytes for sample in samples)


def _searched(recipe: MergeRecipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"evaluation"})


def _listed(weights: MergeWeights) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)
