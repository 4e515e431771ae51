"""Where a model is: a hub id at a revision, a folder, or a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.models.checkpoint_files import refuse_adapter


@dataclass(frozen=True)
class ModelRef:
    """The location of a model. `path` is a hub id, a folder, or a file that ends in .gguf."""

    path: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def local_path(self) -> Path | None:
        """The folder or file, or None for a hub id. Raises FileNotFoundError for a path that is clearly local but absent."""
        path = Path(self.path).expanduser()
        if path.exists():
            return path
        if self.path.startswith((".", "/", "~")) or self.path.endswith(".gguf") or self.path.count("/") > 1:
            raise FileNotFoundError(
                f"The model {self.path} does not exist. A model is a folder with config.json, a .gguf file, or a hub id "
                "such as HuggingFaceTB/SmolLM2-135M-Instruct."
            )
        return None

    def from_pretrained_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for `from_pretrained` of models, tokenizers and configurations."""
        path = self.local_path
        if path is not None and path.suffix == ".gguf":
            return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        return {
            "pretrained_model_name_or_path": self.path if path is None else str(path),
            "revision": self.revision or "main",
            "trust_remote_code": self.trust_remote_code,
        }


def check_model_folder(ref: ModelRef) -> None:
    """Raise ValueError for a folder that is an adapter, FileNotFoundError for one without config.json; nothing else is read."""
    folder = ref.local_path
    if folder is None or folder.is_file():
        return
    refuse_adapter(folder)
    if (folder / "config.json").is_file():
        return
    inside = sorted(file.parent.relative_to(folder).as_posix() for file in folder.glob("*/config.json"))
    hint = f"Did you mean {folder / inside[0]}?" if inside else "Give the folder that save_pretrained wrote."
    raise FileNotFoundError(f"{folder} has no config.json, so it is not the folder of a model. {hint}")
