"""A sample of the seeded faults: whatever is wrong with an input, its user reads a sentence that names it, and no traceback.

`make faults` runs thousands (FUSION_FAULTS of them) and lists what this only counts: the sentences that name nothing, and the
mutants that end well with another result, which are values as good as the original's.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.cli import boundary
from tests.faults import disks
from tests.faults.__main__ import KINDS, mutants, prepare, unspoiled_results
from tests.faults.command_lines import shorten
from tests.faults.runner import Report, run

SAMPLE = {
    "data": 7, "configuration": 9, "study": 2, "merge": 6, "suite": 3, "command": 5, "gguf": 3, "folder": 3, "run": 2,
}  # fmt: skip
"""Mutants of each kind; few, for each is a start of the program."""
NAMED = 0.95
"""The share of sentences that name what was spoiled."""


def outcomes(numbers, folder):
    """What becomes of so many mutants of each kind."""
    before, report = Path.cwd(), Report()
    prepare(folder)
    try:
        with shorten():
            for kind, number in numbers.items():
                for mutant in mutants(kind, folder, number):
                    report.add(mutant)
    finally:
        os.chdir(before)
    return report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return outcomes(SAMPLE, tmp_path_factory.mktemp("faults"))


def test_every_kind_of_fault_is_sampled():
    assert SAMPLE.keys() == KINDS.keys()


def test_no_fault_of_an_input_shows_a_traceback(report):
    assert len(report.outcomes) == sum(SAMPLE.values())
    assert not report.tracebacks(), report.details()


def test_sentences_name_what_is_wrong(report):
    errors = report.errors()
    assert len(errors) > 20
    assert len(report.unnamed()) <= (1 - NAMED) * len(errors), report.details()


def test_a_sentence_is_an_error_to_the_shell(report):
    assert {outcome.status for outcome in report.errors()} <= {1, 2}


@pytest.mark.slow
def test_of_merge_recipes_nearly_every_sentence_names_the_key(tmp_path):
    report = outcomes({"merge": 300}, tmp_path)
    assert not report.tracebacks(), report.details()
    assert len(report.errors()) > 250
    assert len(report.unnamed()) <= 0.02 * len(report.errors()), report.details()


def test_an_unspoiled_input_ends_well_and_prints_the_same_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = prepare(tmp_path)
    with shorten():
        for kind in ("configuration", "data", "suite"):
            (mutant,) = mutants(kind, folder, 1)
            assert mutant.original is not None
            first, second = (run(mutant.original[1]()) for _ in range(2))
            assert first[0] == 0, first[2]
            assert first[:2] == second[:2]


def test_a_bug_is_counted_as_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.plan.plan", lambda *_: {}["absent"])
    found = outcomes({"configuration": 12}, tmp_path).tracebacks()
    assert any("KeyError: 'absent'" in outcome.said for outcome in found)


def outcome_of(fault, folder, expected):
    report = Report()
    wrong = disks.try_one(report, folder, fault, expected)
    assert not wrong
    (outcome,) = report.outcomes
    assert not outcome.is_traceback, outcome.said
    assert outcome.status == (boundary.INTERRUPTED if fault[0] == "Ctrl-C" else 1)
    assert outcome.is_named, outcome.said


@pytest.mark.parametrize(("kind", "number"), [("full at a file", 12), ("Ctrl-C", 7), ("limit of size", 2500)])
def test_after_a_full_disk_or_ctrl_c_an_extraction_goes_on(tmp_path, kind, number):
    outcome_of((kind, "extract", number), tmp_path, {})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("full at a file", 30), ("Ctrl-C", 33), ("limit of size", 100_000)])
def test_after_a_full_disk_or_ctrl_c_a_run_goes_on_to_the_same_result(tmp_path, kind, number):
    outcome_of((kind, "run", number), tmp_path, unspoiled_results(tmp_path))


@pytest.mark.slow
def test_a_merge_that_is_stopped_anywhere_leaves_inputs_alone_and_goes_on_to_the_same_result():
    words = [sys.executable, "-m", "tests.faults.merges", "24"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("24 stopped merges of "), done.stderr[-3000:]
    assert done.returncode == 0, done.stdout
