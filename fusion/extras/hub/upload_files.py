"""Which files of a run or of a merged model go to a hub, and whether they may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fusion.core.secrets import secrets_in, secrets_in_text
from fusion.core.text_files import read_object
from fusion.models.auxiliary_files import AUXILIARY_PATTERNS, TOKENIZER_PATTERNS, find_auxiliary_files, find_files
from fusion.runtime.file_states import damaged_files

CARD, REPORT, PICTURES = "README.md", "report.html", "report/*.png"
FUSED, MERGED = "fusion.json", "merge.json"
"""What a run and a merge write last: marks of a finished model, with the states of its files."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
MODEL_PATTERNS = ("config.json", *WEIGHTS, *AUXILIARY_PATTERNS, CARD, FUSED)
"""A model as others load it. merge.json and recipe.yaml stay: they name folders of this machine, and the card has the rest."""
OTHER_WEIGHTS = ("pytorch_model*", "*.bin", "adapter_*", "*.py")
LOADED_PATTERNS = ("config.json", *WEIGHTS, *TOKENIZER_PATTERNS, "generation_config.json", *OTHER_WEIGHTS)
"""Files that whoever loads a model takes with it, whoever put them there."""
BINARY = {".safetensors", ".png", ".model"}


@dataclass(frozen=True)
class UploadFiles:
    """What is uploaded from where."""

    model: Path
    """The folder of the model."""
    paths: dict[str, Path]
    """By the name that each file has in the repository."""
    left: tuple[str, ...]
    """Other files of the model's folder, which stay here."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by its name in the repository."""
        return {name: path.stat().st_size for name, path in self.paths.items()}


def collect_files(folder: Path, *, report: bool = True) -> UploadFiles:
    """List what of `folder`, a run or a model of ours, is uploaded: the model, its tokenizer and card, and a run's report.

    Raises FileNotFoundError for no such folder, and ValueError where it is none of ours, is not finished, is not as it was
    written, or a file holds a secret.
    """
    model = _finished_model(folder)
    found = [*find_files(model, MODEL_PATTERNS), *find_auxiliary_files(model)]
    paths = {file.relative_to(model).as_posix(): file for file in sorted(set(found))}
    every = {file.relative_to(model).as_posix() for file in model.rglob("*") if file.is_file()}
    if model != folder and report:
        paths |= {file.relative_to(folder).as_posix(): file for file in _report_files(folder)}
    _refuse_damaged(model, paths)
    _refuse_incomplete(model, paths)
    _refuse_secrets(paths)
    return UploadFiles(model, paths, tuple(sorted(every - paths.keys())))


def is_loaded_with_a_model(name: str) -> bool:
    """Whether a file of a repository is read by whoever loads the model there, so that one of another model does harm."""
    return any(fnmatchcase(name, pattern) for pattern in LOADED_PATTERNS)


def _finished_model(folder: Path) -> Path:
    """The folder of the model that a run made, or that was given."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}. Give that of a run, such as runs/mine, or of a merged model."
        )
    if any((folder / name).is_file() for name in (FUSED, MERGED)):
        return folder
    model = folder / "fused"
    if (model / FUSED).is_file():
        return model
    if (folder / "run.json").exists() or (folder / "config.yaml").exists():
        raise ValueError(f"{folder} has no fused model yet: run `fusion run {folder}/config.yaml` to its end.")
    raise ValueError(
        f"{folder} is neither a run nor a merged model: it has no run.json, fused/{FUSED} or merge.json. Give the folder that "
        "fusion run or fusion merge wrote; any other is uploaded by `hf upload`."
    )


def _report_files(run: Path) -> list[Path]:
    if not (run / REPORT).is_file():
        raise ValueError(
            f"{run} has no {REPORT} yet, so that run is not finished: run `fusion run {run}/config.yaml` to its end, or push "
            f"{run}/fused alone."
        )
    return find_files(run, (REPORT, PICTURES))


def _refuse_incomplete(model: Path, paths: dict[str, Path]) -> None:
    missing = [name for name in ("config.json", CARD) if name not in paths]
    missing += [] if any(fnmatchcase(name, "*.safetensors") for name in paths) else ["its weights (*.safetensors)"]
    missing += [] if any(_is_tokenizer(name) for name in paths) else ["a tokenizer"]
    if missing:
        raise ValueError(f"{model} lacks {', '.join(missing)}: run or merge again, which writes what is missing.")


def _is_tokenizer(name: str) -> bool:
    return fnmatchcase(name, "tokenizer.*") or fnmatchcase(name, "vocab.*") or name.endswith((".model", ".tiktoken"))


def _refuse_damaged(model: Path, paths: dict[str, Path]) -> None:
    """Compare every byte with what was written, as `fusion verify` does, and let no other weights go with the model."""
    written = _undamaged_files(model) if (model / FUSED).is_file() else _undamaged_merge(model)
    if strange := [name for name in paths if name.endswith(".safetensors") and name not in written]:
        raise ValueError(
            f"{model} holds {', '.join(strange)}, which nothing of ours has written there: move it elsewhere."
        )


def _undamaged_files(fused: Path) -> set[str]:
    states = read_object(fused / FUSED, "run `fusion run` again").get("files")
    if damage := damaged_files(fused, states, contents=True):
        raise ValueError(
            f"{fused} is not what was written: {'; '.join(damage.values())}. Run `fusion run` again, which makes it anew."
        )
    return set(states or ())


def _undamaged_merge(merged: Path) -> set[str]:
    from fusion.merging.files import merge_record  # here: it imports torch, which the model of a run does not need

    merge_record.refuse_changed_files(merged)
    return set(merge_record.written_files(merged))


def _refuse_secrets(paths: dict[str, Path]) -> None:
    found = [f"{path}, {place} ({kind})" for name, path in paths.items() for place, kind in _secrets(name, path)]
    if found:
        raise ValueError(
            f"Nothing was uploaded, for these hold a secret: {'; '.join(found)}. Take it out, and revoke it if others may have "
            "seen it; --no-report leaves the report here."
        )


def _secrets(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Where a file holds a secret, and what it is."""
    if path.suffix in BINARY:
        return
    yield from (
        (f"line {line}", kind) for line, kind in secrets_in_text(path.read_text(encoding="utf-8", errors="replace"))
    )
    if name.endswith("config.json"):
        yield from ((secret.place, secret.kind) for secret in secrets_in(read_object(path)))
