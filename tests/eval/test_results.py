"""A result comes back from its file as it was, is whole or absent, and each mistake in it is named."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from fusion_eval.results import Result, Sample, write_atomically


def sample(id: str = "a", **change) -> Sample:
    fields = {"domain": "sums", "bytes": 3, "nll": 0.1 + 0.2, "exact_match": True, "prompt": "1 + 1", "target": "2"}
    return Sample(id=id, **fields | {"answer": "2"} | change)


def result(samples: list[Sample] | None = None, **made) -> Result:
    samples = [sample()] if samples is None else samples
    return Result(model="m", suite="heldout", path="runs/a/m", provenance={"seed": 0} | made, samples=samples)


def test_a_result_comes_back_from_its_file_bit_for_bit(tmp_path):
    before = result(
        [sample("a", nll=1 / 3), sample("ü\u2028", prompt="<b>\n\t\"'\\", answer=None, exact_match=None)], torch="2.13"
    )
    before.save(tmp_path / "deep" / "er" / "heldout.json")
    assert Result.load(tmp_path / "deep" / "er" / "heldout.json") == before


def test_a_write_that_dies_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "heldout.json"
    result().save(path)
    before = path.read_bytes()

    def die(*_):
        raise OSError("disk gone")

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(OSError, match="disk gone"):
        result([sample("other")]).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_the_file_before_it_is_whole(tmp_path, monkeypatch):
    path, seen, write = tmp_path / "a.txt", [], Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda *args, **kwargs: (write(*args, **kwargs), seen.append(path.exists()))
    )
    write_atomically(path, "text")
    assert seen == [False]
    assert path.read_text() == "text"


@pytest.mark.parametrize("value", [math.inf, math.nan, Path("a")])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "heldout.json"
    result().save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="`provenance` of m does not fit JSON"):
        result(temperature=value).save(path)
    assert path.read_bytes() == before


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.json: no such result"):
        Result.load(tmp_path / "none.json")


def test_all_mistakes_of_a_file_are_shown_at_once(tmp_path):
    path = tmp_path / "heldout.json"
    broken = json.loads(result().model_dump_json())
    broken["samples"][0]["bytes"] = 0
    broken["samples"][0]["colour"] = "red"
    del broken["suite"]
    path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="is not a result") as found:
        Result.load(path)
    for part in ("heldout.json", "samples.0.bytes", "got 0", "samples.0.colour", "suite"):
        assert part in str(found.value)


def test_half_a_file_is_refused(tmp_path):
    path = tmp_path / "heldout.json"
    path.write_text(result().model_dump_json()[:-9])
    with pytest.raises(ValueError, match=r"heldout.json is not a result.*\n.*Invalid JSON"):
        Result.load(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nll": math.inf}, "finite"),
        ({"nll": math.nan}, "finite"),
        ({"bytes": 0}, "greater"),
        ({"domain": "mean"}, "called"),
    ],
)
def test_an_item_that_has_no_statistics_is_refused(change, why):
    with pytest.raises(ValidationError, match=why):
        sample(**change)


def test_two_items_of_one_id_are_refused():
    with pytest.raises(ValidationError, match="1 ids occur more than once, the first is 'a'"):
        result([sample("a"), sample("b"), sample("a")])


def test_a_result_without_items_is_refused():
    with pytest.raises(ValidationError, match="samples"):
        result([])


def test_a_file_with_keys_that_were_renamed_is_told_their_names(tmp_path):
    path = tmp_path / "heldout.json"
    result().save(path)
    old = json.loads(path.read_text())
    old |= {"made": old.pop("provenance"), "items": old.pop("samples")}
    path.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="is not a result") as error:
        Result.load(path)
    assert "made: Extra inputs are not permitted; it is called provenance now" in str(error.value)
    assert "items: Extra inputs are not permitted; it is called samples now" in str(error.value)
