"""The releases that the tests are run with are releases that the package asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [
    Requirement(text)
    for texts in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in texts
    if not text.startswith("logit-fusion")
]
LOCKED = [
    Requirement(line)
    for name in ("constraints.txt", "requirements.lock")
    for line in (ROOT / name).read_text().split("\n")
    if line
]
FIRST_WITHOUT_ADVISORY = {
    "torch": "2.10.0",  # CVE-2026-24747: memory of a process that loads a checkpoint, weights_only or not
    "jinja2": "3.1.6",  # CVE-2025-27516: out of the sandbox that chat templates run in
    "filelock": "3.20.3",  # CVE-2025-68146 and CVE-2026-22701: links in the place of locks
    "sentencepiece": "0.2.1",  # CVE-2026-1260: memory of a process that loads a tokenizer
    "pyarrow": "23.0.1",  # CVE-2026-25087: memory of a process that reads an Arrow file
}


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_requirement_is_locked_at_releases_that_it_allows(asked):
    pins = [pin for pin in LOCKED if pin.name.replace("_", "-") == asked.name.lower()]
    assert pins
    assert all(str(pin.specifier).removeprefix("==") in asked.specifier for pin in pins)


@pytest.mark.parametrize("name", FIRST_WITHOUT_ADVISORY)
def test_no_release_with_a_known_advisory_is_allowed(name):
    (asked,) = (each for each in ASKED if each.name == name)
    (bound,) = (each.version for each in asked.specifier if each.operator == ">=")
    assert Version(bound) >= Version(FIRST_WITHOUT_ADVISORY[name])


def test_the_lock_pins_each_release_and_names_no_place():
    for pin in LOCKED:
        assert [each.operator for each in pin.specifier] == ["=="]
        assert pin.url is None
