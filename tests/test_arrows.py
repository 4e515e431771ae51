"""Imports run one way: read from the code, not from what happens to be loaded.

The nodes are the rooms: the folders of `fusion`, those of `fusion_eval`, and `fusion_launch`.
"""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {"fusion": ROOT, "fusion_eval": ROOT / "eval", "fusion_launch": ROOT / "launch"}

IMPORTS: dict[str, str] = {
    "__init__": "alignment api cache config core data fusion_eval.results fusion_eval.statistics objectives",
    "__main__": "cli",
    "alignment": "core data tokenizers",
    "analysis": (
        "alignment cache core data fusion_eval.results merging models objectives runtime sources stages tokenizers "
        "training transforms weighting"
    ),
    "api": (
        "alignment cache config core data extras fusion_eval.results fusion_eval.runners fusion_eval.statistics grading "
        "merging models objectives pipeline runtime sources stages tokenizers training weighting"
    ),
    "cache": "core runtime",
    "cli": (
        "analysis cache config core data extras fusion_eval.runners fusion_eval.suites fusion_launch grading "
        "merging models pipeline plan report runtime sources stages study"
    ),
    "config": "core data grading merging models objectives quickstart responses sources training transforms weighting",
    "core": "",
    "data": "core quickstart runtime tokenizers",
    "extras": "core data merging models runtime training",
    "grading": "runtime",
    "merging": (
        "core data fusion_eval.results fusion_eval.runners fusion_eval.statistics fusion_eval.suites models runtime"
    ),
    "models": "core data tokenizers",
    "objectives": "core",
    "pipeline": "analysis cache config fusion_eval.results fusion_eval.runners plan report runtime stages training",
    "plan": "cache config data models responses runtime stages training",
    "quickstart": "fusion_eval.results fusion_eval.statistics",
    "report": "alignment analysis core extras fusion_eval.results fusion_eval.runners fusion_eval.statistics runtime",
    "responses": "core data grading models runtime tokenizers",
    "runtime": "core",
    "sources": "core data models runtime tokenizers",
    "stages": (
        "alignment cache config core data fusion_eval.results fusion_eval.runners merging models objectives "
        "responses runtime sources tokenizers training transforms weighting"
    ),
    "study": "config core fusion_eval.results fusion_eval.statistics pipeline report runtime stages",
    "tokenizers": "",
    "training": "alignment cache core data fusion_launch models objectives runtime transforms weighting",
    "transforms": "core",
    "weighting": "core",
    "fusion_eval": "",
    "fusion_eval.results": "core runtime",
    "fusion_eval.runners": (
        "core data fusion_eval.results fusion_eval.statistics fusion_eval.suites grading models runtime sources"
    ),
    "fusion_eval.statistics": "fusion_eval.results",
    "fusion_eval.suites": "core fusion_eval.results grading",
    "fusion_launch": "",
}
"""What each room imports, exactly: an arrow that is not used any more is taken out here too."""

KNOW_THE_CONFIGURATION = {"config", "stages", "pipeline", "plan", "study", "analysis", "cli", "api", "__init__"}
TELL_THE_STORY = {"cli", "study", "api"}
PUBLIC_FUNCTIONS = {"run", "align", "merge", "evaluate", "extract", "map_to_pivot"}
MODULES_IN_A_FOLDER = 15
ENTRIES_ON_TOP = 30


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package, base in PACKAGES.items():
        for file in sorted((base / package).rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)] = file
    return found


MODULES = modules()


def room(module: str) -> str:
    """The node that a module belongs to."""
    package, *rest = module.split(".")
    if package == "fusion":
        return rest[0] if rest else "__init__"
    return package if package == "fusion_launch" or not rest else f"{package}.{rest[0]}".removesuffix(".__init__")


def imported(file: Path):
    """Modules that a file imports, wherever in the file it does so; imports for type checkers alone count too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in inside]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def graph() -> dict[str, set[str]]:
    """What each room imports of other rooms."""
    found: dict[str, set[str]] = {room(module): set() for module in MODULES}
    for module, file in MODULES.items():
        found[room(module)] |= {room(name) for name in imported(file)} - {room(module)}
    return found


def test_the_rooms_import_what_is_written_here_and_nothing_else():
    assert len(MODULES) > 200
    assert {name: " ".join(sorted(others)) for name, others in graph().items()} == IMPORTS


def test_no_imports_run_in_a_circle():
    TopologicalSorter(graph()).prepare()


def test_only_the_top_knows_the_run_configuration():
    assert {name for name, others in graph().items() if "config" in others} <= KNOW_THE_CONFIGURATION


def test_the_story_is_told_on_top_only():
    assert {name for name, others in graph().items() if "pipeline" in others} <= TELL_THE_STORY


def test_evaluation_never_sees_the_trainer():
    assert not {"training", "config", "stages"} & {
        r for n, o in graph().items() if n.startswith("fusion_eval") for r in o
    }


def test_no_room_is_called_like_a_public_function():
    assert not PUBLIC_FUNCTIONS & graph().keys()


def test_the_front_door_and_every_folder_can_be_taken_in_at_a_glance():
    assert len([entry for entry in (ROOT / "fusion").iterdir() if entry.name != "__pycache__"]) <= ENTRIES_ON_TOP
    counts = Counter(file.parent for file in MODULES.values())
    assert {str(folder): count for folder, count in counts.items() if count > MODULES_IN_A_FOLDER} == {}
