"""What a merge calls a model: a folder, the folder of an adapter of the merge's base, or MODEL+ADAPTER."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusion.merging.adapters.adapter_checkpoint import LoraCheckpoint
from fusion.merging.adapters.adapter_settings import AdapterSettings
from fusion.merging.adapters.adapter_tensors import ADAPTER_WEIGHTS
from fusion.merging.files.checkpoint import Checkpoint, refuse_broken_files
from fusion.models.checkpoint_files import ADAPTER_CONFIG, INDEX, SINGLE, refuse_broken_links
from fusion.models.hub_folder import hub_folder, is_hub_reference
from fusion.models.notices import mention_once


def open_base(base: Path | None, models: Sequence[Path]) -> Checkpoint:
    """Open the base of a merge; without one, the first model, of MODEL+ADAPTER the model.

    Raises ValueError where the base is an adapter or has one.
    """
    folder, adapter = split_reference(models[0] if base is None else base)
    if base is not None and (adapter is not None or is_adapter(folder)):
        raise ValueError(
            f"base_model {base} {'has' if adapter else 'is'} an adapter; the base is a whole model. Fold it in first: "
            f"fusion merge --method linear {base if adapter else f'MODEL+{base}'} --out FOLDER, and name that FOLDER."
        )
    if adapter is None and is_adapter(folder):
        raise _without_base(folder)
    return _open_whole(folder)


def open_model(reference: Path, base: Checkpoint | None) -> Checkpoint:
    """Open one of the models of a merge; an adapter alone belongs to `base`.

    Raises ValueError or FileNotFoundError where it is neither a model nor an adapter that can be folded in.
    """
    folder, adapter = split_reference(reference)
    if adapter is not None:
        return _fold_in(_open_whole(folder), adapter, has_own_base=True)
    if not is_adapter(folder):
        return _open_whole(folder)
    if base is None:
        raise _without_base(folder)
    return _fold_in(base, folder, has_own_base=False)


def split_reference(reference: Path) -> tuple[Path, Path | None]:
    """Split MODEL+ADAPTER into two folders; a folder whose own name has a + is that folder. Either may be ID or ID@REVISION.

    Raises FileNotFoundError where there are no such folders, ValueError where it can be read in two ways.
    """
    text = str(reference)
    if reference.exists() or "+" not in text:
        return hub_folder(reference), None
    places = [place for place in range(1, len(text) - 1) if text[place] == "+"]
    pairs = [(Path(text[:place]), Path(text[place + 1 :])) for place in places]
    found = [(model, adapter) for model, adapter in pairs if model.is_dir() and adapter.is_dir()]
    if not found:  # of one part, then, the other is on the hub
        one_here = [(model, adapter) for model, adapter in pairs if model.is_dir() != adapter.is_dir()]
        found = [
            (hub_folder(model), hub_folder(adapter)) for model, adapter in one_here if _may_be_on_a_hub(model, adapter)
        ]
    if len(found) > 1:
        raise ValueError(f"{text} can be read as {' or '.join(f'{m} with {a}' for m, a in found)}; rename a folder.")
    if not pairs:
        raise FileNotFoundError(f"{text} is no folder, nor MODEL+ADAPTER, the folders of a model and of its adapter.")
    if not found:
        model, adapter = next(((m, a) for m, a in pairs if m.is_dir()), pairs[0])
        absent = adapter if model.is_dir() else model
        raise FileNotFoundError(
            f"{text} means the model {model} with the adapter {adapter}, and there is no folder {absent}. If it lies on a hub, "
            "download it: hf download NAME --local-dir FOLDER."
        )
    return found[0]


def _may_be_on_a_hub(*parts: Path) -> bool:
    return all(part.is_dir() or is_hub_reference(part) for part in parts)


def is_adapter(folder: Path) -> bool:
    """Whether the folder is an adapter alone; some trainings leave a config.json in it, without weights."""
    return (folder / ADAPTER_CONFIG).is_file() and not _has_model(folder)


def _has_model(folder: Path) -> bool:
    has_weights = any((folder / name).is_file() for name in (SINGLE, INDEX)) or any(folder.glob("pytorch_model*.bin"))
    return has_weights and (folder / "config.json").is_file()


def _open_whole(folder: Path) -> Checkpoint:
    """Open a model folder that is not an adapter, and has none beside its weights without being asked for it."""
    if is_adapter(folder):
        raise ValueError(f"{folder} is an adapter and not a whole model; MODEL+ADAPTER names its model first.")
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(
            f"{folder} holds a whole model and an adapter ({ADAPTER_CONFIG}), which transformers would add to it. Move the "
            f"adapter's files to a folder of their own and write {folder}+ADAPTER to fold it in, or leave them out."
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        _refuse_subfolders(folder)
    return Checkpoint.open(folder)


def _refuse_subfolders(folder: Path) -> None:
    adapters = sorted(file.parent for file in folder.glob(f"*/{ADAPTER_CONFIG}"))
    if adapters:
        raise ValueError(
            f"{folder} holds adapters in folders of their own: {', '.join(map(str, adapters))}. Name the one that is meant."
        )


def _fold_in(base: Checkpoint, adapter: Path, *, has_own_base: bool) -> LoraCheckpoint:
    refuse_broken_files(adapter)
    refuse_broken_links(adapter / ADAPTER_WEIGHTS)
    if not (adapter / ADAPTER_CONFIG).is_file():
        _refuse_subfolders(adapter)
        raise FileNotFoundError(
            f"{adapter} has no {ADAPTER_CONFIG}, so it is no adapter; MODEL+ADAPTER names one last."
        )
    checkpoint = LoraCheckpoint.from_adapter(base, adapter, has_own_base=has_own_base)
    _say_other_base(base, adapter, AdapterSettings.read(adapter).followed.base_model_name_or_path)
    return checkpoint


def _without_base(adapter: Path) -> ValueError:
    """The error for an adapter alone in a merge that has no base."""
    name = AdapterSettings.read(adapter).followed.base_model_name_or_path
    here = f"{name} is here: write {name}+{adapter}" if name and Path(name).is_dir() else f"write MODEL+{adapter}"
    known = f", of {name}" if name else ""
    return ValueError(
        f"{adapter} is an adapter alone{known}, and this merge has no base_model. {here}, or name the base_model."
    )


def _say_other_base(base: Checkpoint, adapter: Path, name: str | None) -> None:
    """Say in a line that an adapter names another base than it is folded into; names prove nothing, so it is no error."""
    if not name or Path(name).resolve() == base.folder.resolve():
        return
    here = {_plain(part) for part in base.folder.resolve().parts}
    if _plain(name) not in here | {_plain(str(base.config.get("_name_or_path") or ""))}:
        mention_once(
            f"{adapter} was trained on {name} and is folded into {base.folder}: the result is right only where these are the "
            "same weights."
        )


def _plain(name: str) -> str:
    """The last part of a name or path, as it is compared: `org/Llama-3.2_1B`, `models--org--llama-3.2-1b`."""
    last = name.rstrip("/").rpartition("/")[2].rpartition("--")[2]
    return "".join(letter for letter in last.casefold() if letter.isalnum())
