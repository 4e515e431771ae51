"""Which models stand beside a merged one in its evaluation: what each is called, and what has to be merged to have it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fusion.merging.adapters.model_reference import is_adapter, split_reference
from fusion.merging.methods.base import WeightedMethod
from fusion.merging.methods.linear import Linear
from fusion.merging.recipes.merge_recipe import MergeRecipe
from fusion.merging.search import merge_recipe
from fusion.models.loading import ModelRef, model_fingerprint
from fusion.runtime.artifacts import fingerprint

BASE, MERGED, EQUAL = "base", "merged", "equal weights"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model of an evaluation: a folder, or a merge that is made for it and removed."""

    name: str
    """As tables show it."""
    role: Literal["base", "input", "equal weights", "merged"]
    path: str
    """As the recipe names it."""
    recipe: MergeRecipe | None = None
    """What makes it, where it is no model folder: an adapter with its base, or the merge with equal weights."""

    def identity(self) -> str:
        """What the numbers of this model depend on, as a short hash; reads the weights of folders."""
        if self.recipe is None:
            return fingerprint({"model": model_fingerprint(ModelRef(self.path))})
        keys = self.recipe.model_dump(mode="json", exclude={"models", "base_model"})
        named = [self.recipe.base_model, *(entry.model for entry in self.recipe.models)]
        folders = [folder for path in named if path for folder in split_reference(Path(path)) if folder]
        return fingerprint({"recipe": keys, "inputs": [model_fingerprint(ModelRef(str(folder))) for folder in folders]})

    @contextmanager
    def loadable(self, folder: Path, threads: int | None) -> Iterator[ModelRef]:
        """Yield the model's place; what has to be merged is merged into `folder`, which is removed afterwards."""
        if self.recipe is None:
            yield ModelRef(self.path)
            return
        shutil.rmtree(folder, ignore_errors=True)
        try:
            merge_recipe(self.recipe, folder, threads=threads, show_progress=False)
            yield ModelRef(str(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def evaluated_models(recipe: MergeRecipe, out: Path, *, equal_weights: bool = False) -> list[EvaluatedModel]:
    """The base, every input once, with `equal_weights` the merge in which all count the same, and the merged model, last."""
    base = recipe.base_model
    paths = list(dict.fromkeys(entry.model for entry in recipe.models))
    found = [EvaluatedModel(BASE, "base", base, _folded(recipe, base))] if base else []
    for path, name in short_names([path for path in paths if not base or not _is_same(path, base)]).items():
        found.append(EvaluatedModel(name, "input", path, _folded(recipe, path)))
    if equal_weights and (equal := equally_weighted(recipe)):
        found.append(EvaluatedModel(EQUAL, "equal weights", EQUAL, equal))
    return [*found, EvaluatedModel(MERGED, "merged", str(out))]


def equally_weighted(recipe: MergeRecipe) -> MergeRecipe | None:
    """The same merge with one nth for each of n models, for slerp the middle; None where the method has no weights."""
    method, count = recipe.resolved_method(), len(recipe.models)
    if isinstance(method, WeightedMethod):
        return recipe.with_weights([1 / count] * count)
    return recipe.with_weights([0.5]) if "t" in type(method).model_fields else None


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """A name for each path: its last part that tells it from the others; `runs/a/model` and `runs/b/model` are a and b."""
    taken = {BASE, MERGED, EQUAL}
    parts = {path: Path(path).absolute().parts[::-1] for path in paths}
    names = {path: _telling_part(path, parts) for path in paths}
    counts = Counter(names.values())
    return {
        path: name if counts[name] == 1 and name not in taken else f"model {number} ({name})"
        for number, (path, name) in enumerate(names.items(), start=1)
    }


def _telling_part(path: str, parts: Mapping[str, Sequence[str]]) -> str:
    """The first part, from the end, in which a path differs from all others."""
    own, others = parts[path], [parts[other] for other in parts if other != path]
    for depth, part in enumerate(own):
        others = [other for other in others if len(other) > depth and other[depth] == part]
        if not others:
            return part
    return own[0]


def _folded(recipe: MergeRecipe, path: str) -> MergeRecipe | None:
    """The merge that makes a model of an adapter and its base, in the type of the result; None for a model folder."""
    if Path(path).exists() and not is_adapter(Path(path)):
        return None  # what does not exist is refused by the merge
    base = None if path == recipe.base_model else recipe.base_model
    keys = {"base_model": base, "dtype": recipe.dtype, "vocabulary": recipe.vocabulary}
    return MergeRecipe.model_validate({**keys, "models": [{"model": path}], "method": Linear().model_dump()})


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
