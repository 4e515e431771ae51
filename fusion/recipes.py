"""The configurations that come with the package. Cheap to import."""

from __future__ import annotations

from pathlib import Path


def recipes() -> dict[str, Path]:
    """Files by name, from the installed package or from a checkout."""
    here = Path(__file__).parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
