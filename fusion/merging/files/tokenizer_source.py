"""Tokenizer, chat template, generation settings and ends of answers of a merge that come from a model, not from the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from fusion.core.text_files import read_object
from fusion.merging.files.checkpoint import EMBEDDING_NAMES, Checkpoint
from fusion.merging.files.mergeable import differs_in_vocabulary_only
from fusion.merging.methods.tiles import TensorReader
from fusion.models.auxiliary_files import (
    GENERATION_CONFIG,
    TOKENIZER_PATTERNS,
    add_ends,
    as_list,
    chat_template,
    find_files,
    is_json,
    replace_tokenizer_files,
    write_json,
)
from fusion.models.hub_folder import hub_folder

SPECIAL_IDS = ("bos_token_id", "pad_token_id", "eos_token_id")
"""Keys of config.json and generation_config.json that belong to a tokenizer."""


@dataclass(frozen=True)
class TokenizerSource:
    """The model whose tokenizer the result has; see `open_tokenizer_source`."""

    folder: Path
    """Where its tokenizer lies."""
    reference: Path
    """What the merge calls it: its folder, or MODEL+ADAPTER."""
    position: int
    """Its place among the models."""
    special_ids: dict[str, int | list[int]]
    """Values of `SPECIAL_IDS`: eos ids are those of its generation settings, its tokenizer and its chat template."""
    highest_id: int
    """The largest id of its tokens."""

    @property
    def files(self) -> list[Path]:
        """The files that the result takes from it."""
        return find_files(self.folder, (*TOKENIZER_PATTERNS, GENERATION_CONFIG))

    def write(self, folder: Path) -> None:
        """Put its files into a folder that has the base's, and its ends into the generation settings there."""
        replace_tokenizer_files(self.folder, folder, self.files)
        settings = folder / GENERATION_CONFIG
        if settings.is_file() and not (self.folder / GENERATION_CONFIG).is_file():  # the base's, of another tokenizer
            write_json(settings, self.set_ids(read_object(settings)))
        add_ends(folder, as_list(self.special_ids["eos_token_id"]))

    def set_ids(self, config: dict[str, Any]) -> dict[str, Any]:
        """A configuration with the ids of this tokenizer, also in `text_config` where that states some."""
        inner = config.get("text_config")
        if not isinstance(inner, dict):
            return config | self.special_ids
        stated = {name: id for name, id in self.special_ids.items() if name in inner}
        return config | self.special_ids | {"text_config": inner | stated}


def open_tokenizer_source(reference: Path, models: Sequence[Checkpoint]) -> TokenizerSource:
    """Look at the tokenizer of one of the models. Raises ValueError where it is none of them, or has none that loads."""
    from fusion.models.loading import ModelRef, load_tokenizer

    position = _position(reference, models)
    folder = models[position].tokenizer_folder
    if not find_files(folder, TOKENIZER_PATTERNS):
        raise ValueError(
            f"tokenizer_source: {folder} has no tokenizer; name another model, or copy its tokenizer there."
        )
    if is_json(folder / "tokenizer_config.json") and "auto_map" in read_object(folder / "tokenizer_config.json"):
        raise ValueError(
            f"tokenizer_source: the tokenizer of {folder} is code of its own (auto_map); name another model."
        )
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    return TokenizerSource(
        folder, reference, position, _special_ids(folder, tokenizer), max(tokenizer.get_vocab().values())
    )


def _special_ids(folder: Path, tokenizer: Any) -> dict[str, int | list[int]]:
    """What the folder states, else its tokenizer; to the eos ids, what ends answers of its chat template."""
    from fusion.data.answer_end import trained_ends
    from fusion.data.prompt_format import PromptFormat

    files = [folder / name for name in ("config.json", GENERATION_CONFIG) if (folder / name).is_file()]
    ids: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id}
    for stated in map(read_object, files):  # generation settings count more, as in transformers
        ids |= {name: stated[name] for name in SPECIAL_IDS if stated.get(name) is not None}
    ends = [
        *as_list(ids.get("eos_token_id")),
        *as_list(tokenizer.eos_token_id),
        *trained_ends(tokenizer, PromptFormat()),
    ]
    if not ends:
        raise ValueError(f"tokenizer_source: {folder} names no token that ends a text (eos_token); name another model.")
    first, *others = dict.fromkeys(ends)
    return {name: id for name, id in ids.items() if id is not None} | {
        "eos_token_id": [first, *others] if others else first
    }


def _position(reference: Path, models: Sequence[Checkpoint]) -> int:
    place = hub_folder(reference).resolve()
    found = [n for n, model in enumerate(models) if model.reference.resolve() == place]
    if not found:
        listed = ", ".join(str(model.reference) for model in models)
        raise ValueError(f"tokenizer_source: {reference} is none of the models; name the base or one of {listed}.")
    return found[0]


@dataclass(frozen=True)
class ExtendedCheckpoint(Checkpoint):
    """A checkpoint whose embedding and head go on with the rows of tokens that another has and it lacks."""

    shorter: Checkpoint
    longer: Checkpoint

    @override
    def reader(self, name: str, base: TensorReader, size: int) -> TensorReader:
        if self.shorter.entry(name).size >= size:
            return self.shorter.reader(name, base, size)
        return self.shorter.reader(name, self.longer.reader(name, base, size), size)


def extend_vocabulary(base: Checkpoint, model: Checkpoint) -> Checkpoint:
    """The base with as many rows of tokens as a model, whose rows it gets where it has none; the base where it has as many."""
    longer = {
        name: replace(entry, shape=other.shape)
        for name, entry in base.entries.items()
        if (other := model.find(name)) and differs_in_vocabulary_only(name, other, entry) and other.shape > entry.shape
    }
    if not longer:
        return base
    rows = max(entry.shape[0] for entry in longer.values())
    return ExtendedCheckpoint(base.folder, _with_vocab_size(base.config, rows), base.entries | longer, base, model)


def _with_vocab_size(config: dict[str, Any], rows: int) -> dict[str, Any]:
    inner = config.get("text_config")
    parts = {"text_config": _with_vocab_size(inner, rows)} if isinstance(inner, dict) else {}
    return config | parts | ({"vocab_size": rows} if "vocab_size" in config else {})


def check_rows(source: TokenizerSource, base: Checkpoint) -> None:
    """Raise ValueError where the result would have tokens without an embedding."""
    rows = min((entry.shape[0] for name, entry in base.entries.items() if name.endswith(EMBEDDING_NAMES)), default=None)
    if rows is not None and source.highest_id >= rows:
        raise ValueError(
            f"tokenizer_source: {source.folder} has tokens up to id {source.highest_id}, and the result has embeddings of "
            f"{rows}. Where the model has more rows than the base, --vocabulary pad takes them over."
        )


def template_notes(base: Path, models: Sequence[Path]) -> list[str]:
    """Say where models have a chat template and the base has none, or all of them have one that is not the base's."""
    own, templates = chat_template(base), [chat_template(model) for model in models]
    having = [model for model, template in zip(models, templates, strict=True) if template is not None]
    if not having or own in templates:
        return []
    way_out = f"--tokenizer-source {having[0]} takes tokenizer, chat template and ends of answers from there."
    if own is None:
        names = " and ".join(model.name for model in having)
        return [f"{base} has no chat template, and {names} can chat: the result cannot; {way_out}"]
    if len(set(templates)) > 1:
        return []
    return [f"The models have one chat template, and {base} another, which the result has; {way_out}"]
