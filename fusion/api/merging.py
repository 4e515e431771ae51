"""Models that grew from one base become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.merging.recipes.merge_recipe import parse_recipe
from fusion.merging.search import merge_recipe

Models = Mapping[str, float] | Sequence[str | Path]
"""Folders with a weight each, or folders alone, for methods that have weights of their own or need none."""


def merge(
    method: str,
    base: str | Path | None,
    models: Models,
    out: str | Path,
    *,
    dtype: str | None = None,
    vocabulary: str = "refuse",
    tokenizer_source: str | Path | None = None,
    allow_different: Sequence[str] = (),
    threads: int | None = None,
    **settings: Any,
) -> Path:
    """Merge model folders, LoRA adapters of the base, or MODEL+ADAPTER, into the folder `out`, and return it.

    Args:
        method: `linear`, `slerp`, `task_arithmetic`, `ties`, `dare_ties`, `della`, `breadcrumbs`, `sce`, `karcher`,
            `model_stock` ...; docs/merging.md says what each does.
        base: The model that all others grew from; None for methods that need none.
        models: `{"runs/a": 0.3, "runs/b": 0.3}`, or a list of folders.
        out: A folder that does not exist yet, is empty, or holds this very merge.
        dtype: float32, bfloat16 or float16; the base's, if not said.
        vocabulary: `pad` lets models have more or fewer tokens than the base.
        tokenizer_source: The model whose tokenizer, chat template and generation settings are taken; the base's, if not said.
        allow_different: Keys of config.json, such as `rope_theta`, for which the base's hold where models differ.
        threads: As many as cores, if not said.
        settings: Of the method, such as `density=0.5`; lists and schedules as in a recipe.

    Raises:
        ValueError: With every mistake of the arguments, and where the models do not fit together.
        FileExistsError: Where `out` holds something else.
        BlockingIOError: Where another process writes there.
    """
    weighted = models.items() if isinstance(models, Mapping) else [(model, None) for model in models]
    entries = [{"model": str(model)} | ({} if weight is None else {"weight": weight}) for model, weight in weighted]
    keys = {
        "base_model": None if base is None else str(base),
        "models": entries,
        "method": {"kind": method, **settings},
        "dtype": dtype,
        "vocabulary": vocabulary,
        "tokenizer_source": None if tokenizer_source is None else str(tokenizer_source),
        "allow_different": list(allow_different),
    }
    recipe = parse_recipe({name: value for name, value in keys.items() if value is not None}, "merge")
    return merge_recipe(recipe, Path(out), threads=threads).folder
