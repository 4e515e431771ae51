"""run.json that was damaged: refused by name, with what to do, and never read as something else."""

import pytest

from fusion.runtime.run_record import RunRecord


@pytest.fixture
def record(tmp_path):
    found = RunRecord(tmp_path)
    found.update(date="2026-01-02", stages=[("a", 1.5)], counts={1: "two"})
    return found


def test_it_is_read_as_it_was_written_and_added_to(record):
    assert record.read() == {"date": "2026-01-02", "stages": [["a", 1.5]], "counts": {"1": "two"}}
    record.update(date="2026-01-03")
    assert record.read()["date"] == "2026-01-03"
    assert record.read()["stages"] == [["a", 1.5]]


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    return content.replace(b"2026-01-02", b"2026-01-03")  # another day, for templates that print it


@pytest.mark.parametrize("harm", [cut, flip, lambda _: b"", lambda _: b"[]"], ids=["cut", "flip", "empty", "list"])
def test_damage_is_refused_and_the_way_out_is_one(record, harm):
    file = record.folder / "run.json"
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"{file}.*; delete {file} and run the same command again"):
        record.read()
    file.unlink()
    assert record.read() == {}
