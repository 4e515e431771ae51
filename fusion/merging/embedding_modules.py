"""What embedding models have behind the transformer (pooling, prompts, layers of their own): taken over, and not merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_json
from fusion.merging.tokenizers.vocabulary import is_same_file
from fusion.models.auxiliary_files import MODULE_SETTINGS, MODULES, find_files, find_module_files
from fusion.models.checkpoint_files import shown

VERSIONS = "__version__"
"""What config_sentence_transformers.json says of the libraries that wrote it."""


def module_notes(base: Path, models: Sequence[Path]) -> list[str]:
    """Say where a model's modules are not those that the result has, which are the base's, a sentence for each model."""
    embedding = [model for model in dict.fromkeys(models) if (model / MODULES).is_file() and model != base]
    if embedding and not (base / MODULES).is_file():
        return [
            f"{base} has no {MODULES}, and {' and '.join(map(str, embedding))} have one: the result has no pooling. Copy "
            f"{MODULES}, its folders and config_sentence_transformers.json there from one of them."
        ]
    differing = {model: _differing_files(base, model) for model in embedding}
    return [
        f"{model} has other modules behind the transformer than the base {base}: {shown(names)}. They are not merged; the "
        "result has the base's."
        for model, names in differing.items()
        if names
    ]


def _differing_files(base: Path, model: Path) -> list[str]:
    names = sorted({file.relative_to(folder).as_posix() for folder in (base, model) for file in _files(folder)})
    return [name for name in names if not _is_same(base / name, model / name)]


def _files(folder: Path) -> list[Path]:
    return [*find_files(folder, MODULE_SETTINGS), *find_module_files(folder)]


def _is_same(first: Path, second: Path) -> bool:
    if not (first.is_file() and second.is_file()):
        return False
    if first.suffix == ".json":
        return _settings(first) == _settings(second)
    return is_same_file(first, second)


def _settings(file: Path) -> Any:
    """What a file of settings says, without what wrote it."""
    content = read_json(file)
    return {key: value for key, value in content.items() if key != VERSIONS} if isinstance(content, dict) else content
