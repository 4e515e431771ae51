"""The command `fusion merge`. A merge alone imports neither transformers nor a tokenizer, so that it starts in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusion.cli.app import app
from fusion.cli.runs import until

if TYPE_CHECKING:
    from fusion.data.example import Example
    from fusion.merging.files.stream import MergeResult
    from fusion.merging.recipes.merge_recipe import MergeRecipe


@app.command()
def merge(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG | RECIPE | MODEL[:WEIGHT]...", help="What to merge; see above.", show_default=False
        ),
    ],
    override: Annotated[
        list[str],
        typer.Option("--set", metavar="A.B=C", help="Override a value of CONFIG, or set one of --method: density=0.5."),
    ] = [],  # noqa: B006
    method: Annotated[
        str | None, typer.Option(help="Merge the models that follow: linear, ties, sce, slerp, ...")
    ] = None,
    base_model: Annotated[Path | None, typer.Option(help="The model they grew from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the merged model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; by default the base's.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="refuse or pad models with more or fewer tokens.")] = None,
    tokenizer_source: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Take tokenizer, chat template and generation settings from this model."),
    ] = None,
    allow_different: Annotated[
        list[str],
        typer.Option(
            metavar="KEY", help="Take the base's KEY of config.json, such as rope_theta, where models differ."
        ),
    ] = [],  # noqa: B006
    search: Annotated[
        str | None, typer.Option(metavar="DATA", help="Choose the weights on this validation file, such as dev.jsonl.")
    ] = None,
    evaluate: Annotated[
        list[str],
        typer.Option(metavar="DATA", help="Measure the result beside its inputs: held-out data, a run, or a suite."),
    ] = [],  # noqa: B006
    threads: Annotated[int | None, typer.Option(min=1, help="By default as many as cores.")] = None,
) -> None:
    """Merge models: those of a run, of a recipe, or of the command line.

    fusion merge CONFIG: everything of a run up to the merge of its pairwise models.

    fusion merge RECIPE.yaml --out DIR: a merge as a file, ours or mergekit's. A run has a pivot, a recipe has models.

    fusion merge --method ties --base-model DIR A:0.3 B:0.3 --out DIR: the same without a file.
    """
    from fusion.core.system_errors import naming
    from fusion.core.yaml_files import read_yaml
    from fusion.merging.recipes.merge_recipe import is_merge_recipe, parse_recipe

    file = Path(inputs[0])
    if method is None and len(inputs) > 1 and file.is_file() and is_merge_recipe(read_yaml(file)):
        raise ValueError(
            f"{file} is a recipe, and {inputs[1]} no part of it; name the folder of the merged model with --out."
        )
    raw = read_yaml(file) if method is None and len(inputs) == 1 and file.is_file() else None
    if method is None and (raw is None or not is_merge_recipe(raw)):
        given = (
            base_model,
            out,
            dtype,
            vocabulary,
            search,
            threads,
            evaluate or None,
            tokenizer_source,
            allow_different or None,
        )
        if len(inputs) > 1 or any(option is not None for option in given):
            raise ValueError(
                f"{inputs[0]} is no recipe of a merge; give a recipe, or --method and the models to merge. The models of a run "
                "are measured by fusion evaluate."
            )
        until(inputs[0], override, "merge")
        return
    names = {"tokenizer_source": tokenizer_source, "allow_different": allow_different, "evaluation": evaluate}
    options = recipe_options(dtype=dtype, vocabulary=vocabulary, search=search, **names)
    if method is not None:
        keys = recipe_keys(method, inputs, base_model=base_model, settings=override)
        recipe = parse_recipe(keys | options, "fusion merge")
    else:
        assert raw is not None
        if override or base_model:
            raise ValueError(
                f"{file} is a recipe: write its base_model and settings there; --base-model and --set go with --method."
            )
        recipe = parse_recipe(parse_recipe(raw, str(file)).model_dump(exclude_unset=True) | options, str(file))
    if out is None:
        raise ValueError("Name the folder of the merged model with --out.")
    with naming(out):
        run_recipe(recipe, out, threads)


def recipe_options(*, search: str | None, **options: Any) -> dict[str, Any]:
    """The keys of a recipe that options of the command line set; of the same name, but for `search`."""
    given = options | {"search": search and {"validation": {"path": search}}}
    return {key: value for key, value in given.items() if value not in (None, [])}


def recipe_keys(
    method: str, models: Sequence[str], *, base_model: Path | None, settings: Sequence[str]
) -> dict[str, Any]:
    """The keys of a recipe from the words of a command line: `A:0.3` is a model and its weight, `density=0.5` a setting."""
    from fusion.core.yaml_files import parse_assignment

    method_keys: dict[str, Any] = {"kind": method}
    for setting in settings:
        name, value = parse_assignment(setting, "name=value, for example density=0.5")
        method_keys[name] = value
    base = {"base_model": str(base_model)} if base_model else {}
    return base | {"models": [_model_entry(word) for word in models], "method": method_keys}


def run_recipe(recipe: MergeRecipe, out: Path, threads: int | None = None) -> None:
    """Merge as the recipe says, after a search for the weights and before an evaluation where it asks for these."""
    if recipe.search is None and recipe.evaluation is None:
        from fusion.merging.search import merge_recipe

        _tell(out, merge_recipe(recipe, out, threads=threads))
        return
    from fusion.cli.merge_data import merge_evaluations, validation_examples
    from fusion.cli.merge_evaluation import evaluate_merge, plan_evaluation
    from fusion.runtime.console import quiet

    quiet()
    validation = validation_examples(recipe.search)
    evaluations = merge_evaluations(recipe, validation)
    models = plan_evaluation(recipe, out, evaluations, validation)
    _tell(out, _merge_or_search(recipe, out, validation, threads=threads))
    evaluate_merge(models, recipe, out, evaluations, validation=validation, threads=threads)


def _merge_or_search(
    recipe: MergeRecipe, out: Path, validation: Sequence[Example], *, threads: int | None
) -> MergeResult:
    from fusion.merging.search import is_searched, merge_again, merge_recipe, search_and_merge

    if recipe.search is None:
        return merge_recipe(recipe, out, threads=threads)
    if is_searched(recipe, out):
        return merge_again(recipe, out, threads=threads)
    return search_and_merge(recipe, out, validation, threads=threads)


def _tell(out: Path, result: MergeResult) -> None:
    typer.echo(f"{out}: merged." if result.created else f"{out}: there already, from exactly these inputs.")


def _model_entry(word: str) -> dict[str, Any]:
    path, colon, weight = word.rpartition(":")
    try:
        return {"model": path, "weight": float(weight)} if colon else {"model": word}
    except ValueError:
        return {"model": word}
