"""Imports run one way: read from the code, not from what happens to be loaded."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOTTOM = {"rows", "settings", "tail"}
ALLOWED = {
    "rows": set(),
    "settings": set(),
    "tail": set(),
    "spelling": set(),
    "recipes": set(),
    "quickstart": {"quickstart"},
    "made": set(),
    "ranks": set(),
    "hardware": set(),
    "models": set(),
    "encode": {"spelling"},
    "corpus": {"quickstart"},
    "head": BOTTOM,
    "align": BOTTOM,
    "objectives": BOTTOM,
    "transforms": BOTTOM,
    "weighting": BOTTOM,
    "merge": BOTTOM,
    "cache": BOTTOM | {"made"},
    "leak": {"cache"},
    "batch": BOTTOM | {"encode"},
    "writing": {"batch", "encode", "spelling"},
    "responses": BOTTOM | {"corpus", "fusion_eval", "made", "writing"},
    "needs": {"cache", "objectives", "transforms", "weighting"},
    "dumps": BOTTOM | {"encode"},
    "vocabulary": {"align", "encode", "spelling"},
    "rescaling": set(),
    "classes": set(),
    "concepts": set(),
    "helping": BOTTOM | {"align", "cache", "corpus", "weighting"},
    "easiest": {"corpus"},
    "folds": {"corpus"},
    "shares": BOTTOM | {"align", "helping", "weighting"},
    "overlay": BOTTOM | {"align"},
    "sources": BOTTOM | {"batch", "encode", "head", "models", "ranks", "writing"},
    "progress": {"ranks"},
    "record": {"made", "progress", "ranks"},
    "report": {"progress", "fusion_eval"},
    "train": BOTTOM
    | {"align", "batch", "cache", "corpus", "encode", "fusion_launch", "head", "leak", "made", "models", "objectives"}
    | {"ranks", "transforms", "weighting"},
    "draft": BOTTOM | {"batch", "encode", "head", "train"},
    "conflicts": {"objectives", "transforms", "weighting"},
    "config": BOTTOM
    | {"conflicts", "hardware", "merge", "models", "objectives", "quickstart", "responses", "sources", "train"}
    | {"transforms", "weighting"},
    "fusion_launch": set(),
    "fusion_eval": {"batch", "corpus", "encode", "head", "models", "rows", "sources", "writing"},
}
ON_TOP = {
    "cachefiles",
    "configfile",
    "extracting",
    "job",
    "lineage",
    "plan",
    "pipeline",
    "steps",
    "merging",
    "drafting",
    "responding",
    "store",
    "inspect",
    "tables",
    "benchmark",
    "study",
    "cli",
    "__init__",
    "__main__",
}
KNOW_THE_CONFIGURATION = {
    "config",
    "configfile",
    "job",
    "lineage",
    "plan",
    "pipeline",
    "steps",
    "store",
    "merging",
    "inspect",
    "study",
    "cli",
    "__init__",
}


def rooms():
    """Each source file with the room it belongs to: the first part of its path."""
    launch, eval = ROOT / "launch/fusion_launch", ROOT / "eval/fusion_eval"
    for root, package in [(ROOT / "fusion", None), (eval, "fusion_eval"), (launch, "fusion_launch")]:
        for file in sorted(root.rglob("*.py")):
            yield file, package or file.relative_to(root).parts[0].removesuffix(".py")


def imports(file):
    """Rooms that a file imports, wherever in the file it does so; imports for type checkers alone count too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module or ""]
            if node.module == "fusion":
                names = [f"fusion.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "fusion" and len(parts) > 1:
                yield parts[1]
            elif parts[0] in ("fusion_eval", "fusion_launch"):
                yield parts[0]


FILES = list(rooms())


def test_there_are_files_to_read():
    assert len(FILES) > 40
    assert {room for _, room in FILES} == ALLOWED.keys() | ON_TOP


@pytest.mark.parametrize(("file", "room"), FILES, ids=[str(file.relative_to(ROOT)) for file, _ in FILES])
def test_a_file_imports_only_what_lies_below_it(file, room):
    if room not in ON_TOP:
        assert set(imports(file)) - {room} <= ALLOWED[room]
    elif room != "cli":
        assert "cli" not in set(imports(file)) or room == "__main__"


def test_only_the_top_knows_the_run_configuration():
    know = {room for file, room in FILES if {"config", "configfile"} & set(imports(file))}
    assert know <= KNOW_THE_CONFIGURATION


def test_the_story_is_told_on_top_only():
    assert {room for file, room in FILES if "pipeline" in set(imports(file))} <= {"cli", "__init__", "study"}
