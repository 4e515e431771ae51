"""Weight files of a model folder, by their headers alone: which tensors they hold, and whether they are whole weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fusion.core.text_files import read_object

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INTEGER_DTYPES = {"BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"}
LFS_POINTER = b"version https://git-lfs"
WEB_PAGES = (b"<!doctype", b"<html", b"<?xml")
LOOKED_AT = 200
"""Bytes that tell a file from what stands in its place."""


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of a tensor: its type as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors that transformers would read from a model folder, by name; no weights are read.

    Raises ValueError where the folder is an adapter or has a damaged file, and what `weight_files` raises.
    """
    refuse_adapter(folder)
    found: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        found |= _header(file)
    return found


def refuse_adapter(folder: Path) -> None:
    """Raise ValueError where the folder holds an adapter, alone or beside a model, which transformers would add silently."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return
    base = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    raise ValueError(
        f"{folder} holds a LoRA adapter ({ADAPTER_CONFIG}) of {base or 'another model'}, not a whole model. Fold it into "
        f"its model first (fusion merge --method linear MODEL+{folder} --out FOLDER), and point to the result."
    )


def refuse_integers(folder: Path, stored: Mapping[str, StoredTensor]) -> None:
    """Raise ValueError where weights are integers and config.json does not say how they were quantized."""
    names = sorted(name for name, t in stored.items() if t.dtype in INTEGER_DTYPES and name.endswith(".weight"))
    config = folder / "config.json"
    if names and config.is_file() and "quantization_config" not in read_object(config):
        raise ValueError(
            f"{folder}: {shown(names)} are stored as {stored[names[0]].dtype}, and config.json has no quantization_config that "
            "says what they mean. Copy config.json from where the weights come from, or use weights in floating point."
        )


def shown(names: list[str], most: int = 3) -> str:
    """Return the first few names and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a model's weights: the single one, or the shards that the index names.

    Raises FileNotFoundError where one is absent, ValueError where there are two sets of weights or pickled ones only.
    """
    single, index = folder / SINGLE, folder / INDEX
    refuse_broken_links(single, index)
    if single.is_file() and index.is_file():
        raise ValueError(f"{folder} has both {SINGLE} and {INDEX}; remove the one that is not meant.")
    if single.is_file():
        return [single]
    if index.is_file():
        return [_shard(folder, name) for name in sorted(set(weight_map(index).values()))]
    refuse_pickles(folder)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    hint = f"found {', '.join(others)}" if others else "found no weights"
    raise FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}: {hint}.")


def weight_map(index: Path) -> dict[str, str]:
    """Return the shard of each tensor, as an index names it. Raises ValueError where it does not."""
    refuse_stand_in(index)
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ValueError(f"{index} has no weight_map with the file of each tensor; copy it again.")
    return shards


def refuse_pickles(folder: Path) -> None:
    """Raise ValueError where a folder without safetensors has pickled weights."""
    pickled = sorted(file.name for pattern in PICKLE_PATTERNS for file in folder.glob(pattern))
    if pickled:
        raise ValueError(
            f"{folder} has pickled weights only ({pickled[0]}), and a pickle can run code. Load the model where you "
            "trust it and save it again with save_pretrained, which writes safetensors."
        )


def refuse_broken_links(*files: Path) -> None:
    """Raise FileNotFoundError where one of the files is a link to what is not there, as in a hub's cache that was emptied."""
    for file in files:
        if file.is_symlink() and not file.exists():
            raise FileNotFoundError(
                f"{file} is a link to {file.readlink()}, and nothing is there. Copy or download the model again, or mend the "
                "link."
            )


def refuse_stand_in(file: Path) -> None:
    """Raise ValueError where a Git LFS pointer, or the web page of a wrong download, has the name of a file of a model."""
    start = _start(file)
    if start.startswith(LFS_POINTER):
        raise ValueError(f"{file} is a Git LFS pointer: run git lfs pull there.")
    if start.lstrip().lower().startswith(WEB_PAGES):
        raise ValueError(
            f"{file} is a web page, saved in place of the file that it shows. Download the file itself, as hf download does."
        )


def unreadable_weights(file: Path, error: SafetensorError) -> ValueError:
    """The error for a file of weights that safetensors cannot read, with what a server wrote instead where it is a text."""
    start = _start(file)
    if start and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):  # a length of a header has zeros
        answer = " ".join(start.decode("ascii").split())
        return ValueError(
            f"{file} holds no weights but a text, {answer!r}: its download went wrong. Download it again."
        )
    return ValueError(f"{file} is damaged or no safetensors file: {error}. Copy it again.")


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(LOOKED_AT)


def _shard(folder: Path, name: str) -> Path:
    file = folder / name
    inside = Path(name).name == name
    if inside:
        refuse_broken_links(file)
    if not inside or not file.is_file():
        raise FileNotFoundError(f"{folder / INDEX} names the shard {name}, which is not in the folder; copy it there.")
    return file


def _header(file: Path) -> dict[str, StoredTensor]:
    refuse_stand_in(file)
    try:
        with safe_open(file, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return {name: StoredTensor(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise unreadable_weights(file, error) from error
