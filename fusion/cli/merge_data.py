"""The data that `fusion merge` reads: those that weights are chosen on, and those that the result is measured on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from fusion.config import DataSettings, loading
from fusion.core.settings import Settings, allowed_keys, suggest
from fusion.core.yaml_files import read_yaml
from fusion.data.datasets import BUILTIN, load
from fusion.data.example import Example, unique_examples
from fusion.data.prompt_format import PromptFormat
from fusion.merging.evaluation.heldout_evaluation import HeldoutEvaluation
from fusion.merging.recipes.evaluation_settings import SuiteSettings
from fusion.merging.search import check_disjoint
from fusion.runtime.console import show
from fusion.runtime.distributed import device
from fusion_eval.runners.heldout import HeldoutSettings
from fusion_eval.suites.suite import load_suite, suites

if TYPE_CHECKING:
    from fusion.merging.evaluation.merge_evaluation import ModelEvaluation
    from fusion.merging.evaluation.suite_evaluation import SuiteEvaluation
    from fusion.merging.recipes.merge_recipe import MergeRecipe
    from fusion.merging.recipes.search_settings import WeightSearch

YAML = (".yaml", ".yml")
AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True)
class HeldoutData:
    """Examples of one entry, and how they are put to models, which the configuration of a run may say."""

    examples: list[Example]
    settings: HeldoutSettings = field(default_factory=lambda: HeldoutSettings(device=device()))
    prompt_format: PromptFormat = field(default_factory=PromptFormat)


def merge_evaluations(recipe: MergeRecipe, validation: Sequence[Example]) -> list[ModelEvaluation]:
    """Load what the result is measured on: the recipe's `evaluation`, or, after a search without one, the validation examples.

    Raises ValueError for what cannot be read, and for a question that is also one of `validation`.
    """
    entries = [_as_suite(entry) for entry in recipe.evaluation or []]
    named = [(number, entry) for number, entry in enumerate(entries) if "suite" not in entry]
    found: list[ModelEvaluation] = []
    if heldout := [_heldout(number, entry) for number, entry in named]:
        found.append(_joined(heldout))
        check_disjoint(validation, _joined(heldout).examples)
    found += [_suite(number, entry) for number, entry in enumerate(entries) if "suite" in entry]
    if not found and validation:
        found.append(HeldoutEvaluation(validation, HeldoutSettings(device=device()), name="validation"))
    return found


def validation_examples(search: WeightSearch | None) -> list[Example]:
    """Load the examples that weights are chosen on. Raises ValueError where one of them is among the test data."""
    if search is None:
        return []
    split = _split(str(search.validation.get("path", "")), "validation")
    settings = _settings("search.validation", {"domain": "validation"} | split | search.validation)
    if settings.split == "test":
        raise ValueError(f"search: {settings.path} would be searched on its split `test`; choose on other data.")
    examples = list(unique_examples(load(**settings.reading)))
    if search.test is not None:
        check_disjoint(examples, load(**_settings("search.test", {"domain": "test"} | search.test).reading))
    return examples


def _as_suite(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry whose path is the name or the file of a suite, as one of a suite."""
    path = str(entry.get("path", ""))
    is_suite = path in suites() and not Path(path).exists()
    if is_suite or "tasks" in _yaml_keys(path):
        return {name: value for name, value in entry.items() if name != "path"} | {"suite": path}
    return entry


def _heldout(number: int, entry: dict[str, Any]) -> HeldoutData:
    path = str(entry.get("path", ""))
    if "pivot" in _yaml_keys(path):
        return _heldout_of_run(path)
    if path.endswith(YAML) and Path(path).is_file():
        raise ValueError(
            f"evaluation.{number}: {path} is neither a run, which has a pivot, nor a suite, which has tasks."
        )
    if not Path(path).exists() and (close := difflib.get_close_matches(path, suites(), n=1, cutoff=0.75)):
        raise ValueError(f"evaluation.{number}: there is no suite and no file {path}; did you mean {close[0]}?")
    keys = {"domain": _label(path)} | _split(path, "heldout") | entry
    settings = _settings(f"evaluation.{number}", keys)
    if settings.response is None:
        raise ValueError(
            f"evaluation.{number}: {path} has no response to measure with response: null; name its column."
        )
    return HeldoutData(load(**settings.reading))


def _heldout_of_run(path: str) -> HeldoutData:
    """The held-out examples of a run, put to models as the run puts them to its pivot."""
    config = loading.load(path)
    how, pivot = config.evaluation, config.pivot
    form = PromptFormat(
        pivot.template,
        pivot.chat_template_kwargs,
        pivot.answer_prefix,
        pivot.fold_system_message,
        stop=tuple(pivot.stop),
    )
    settings = HeldoutSettings(
        how.exact_match,
        how.max_new_tokens,
        how.batch_tokens,
        config.extract.resolved_dtype,
        device(),
        how.compared_parts,
    )
    examples = [example for data in config.data.heldout for example in load(**data.reading)]
    return HeldoutData(examples, settings, form)


def _joined(data: Sequence[HeldoutData]) -> HeldoutEvaluation:
    """All examples, each content once; how they are put to models is said by the first entry that is a run."""
    first = next((each for each in data if each != HeldoutData(each.examples)), data[0])
    examples = [example for each in data for example in each.examples]
    unique = list(unique_examples(examples))
    if again := len(examples) - len(unique):
        show([f"evaluation: {again:,} examples left out that are there already."])
    return HeldoutEvaluation(unique, first.settings, first.prompt_format)


def _suite(number: int, entry: dict[str, Any]) -> SuiteEvaluation:
    if find_spec("lm_eval") is None:
        raise ValueError("Benchmarks need lm-eval: pip install 'logit-fusion[eval]'.")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when lm-eval is imported; the bars are ours
    from fusion.merging.evaluation.suite_evaluation import SuiteEvaluation
    from fusion_eval.runners.evaluate import BenchmarkSettings

    given = _checked(SuiteSettings, f"evaluation.{number}", entry)
    settings = BenchmarkSettings(
        Path(given.data) if given.data else None, given.limit, given.max_new_tokens, given.template,
        given.allow_code_execution, device=device(), scoring=given.scoring,
    )  # fmt: skip
    return SuiteEvaluation(load_suite(given.suite), settings)


def _yaml_keys(path: str) -> dict[str, Any]:
    return read_yaml(Path(path)) if path.endswith(YAML) and Path(path).is_file() else {}


def _split(path: str, name: str) -> dict[str, str]:
    """The split of built-in data that is for this; other data have splits of their own."""
    return {"split": name} if path.startswith(BUILTIN) else {}


def _label(path: str) -> str:
    """What examples of a file are called in tables: its name, without what comes after the first point."""
    return Path(path.removeprefix(BUILTIN)).name.partition(".")[0] or "evaluation"


def _settings(place: str, data: dict[str, Any]) -> DataSettings:
    return _checked(DataSettings, place, data)


def _checked(kind: type[AnySettings], place: str, data: dict[str, Any]) -> AnySettings:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(kind, place, mistake) for mistake in error.errors())) from None


def _explain(kind: type[Settings], place: str, mistake: Any) -> str:
    location = ".".join(map(str, [place, *mistake["loc"]]))
    if mistake["type"] == "extra_forbidden":
        *parents, key = mistake["loc"]
        return f"unknown key {location}{suggest(str(key), allowed_keys(kind, parents))}"
    return f"{location}: {mistake['msg'].removeprefix('Value error, ')}"
