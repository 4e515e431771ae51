"""The configurations and studies that come with the package. Cheap to import."""

from __future__ import annotations

from pathlib import Path


def recipes() -> dict[str, Path]:
    """Configurations by name, from the installed package or from a checkout: whole runs, then one for each method."""
    return _named("*.yaml") | _named("methods/*.yaml")


def studies() -> dict[str, Path]:
    """Studies by name."""
    return _named("study/*.yaml")


def _named(pattern: str) -> dict[str, Path]:
    package = Path(__file__).parents[1]
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob(pattern))}
