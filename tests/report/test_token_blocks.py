"""Two tokenizations are cut where both have a boundary, so that both sides of a block cover the same bytes."""

import copy

import pytest
from pydantic import TypeAdapter

from fusion.core.overlay import Overlay
from fusion.report.run_contents import read_run
from fusion.report.token_blocks import token_blocks
from tests.helpers.report_runs import overlay, write_run


def cut(given: dict, source: str) -> list[tuple[list[str], list[str], bool]]:
    return [
        ([box.text for box in block.pivot], [box.text for box in block.source], block.matched)
        for block in token_blocks(TypeAdapter(Overlay).validate_python(given), source)
    ]


def test_a_block_begins_where_both_have_a_boundary():
    assert cut(overlay(), "smol") == [
        ([" a", "b"], [" ab"], True),
        ([" cd"], [" c", "d"], True),
        (["</s>"], ["<end>"], True),
    ]
    assert cut(overlay(), "tiny-llama") == [
        ([" a"], [" a"], True),
        (["b", " cd"], ["b cd"], True),
        (["</s>"], ["<eos>"], True),
    ]


@pytest.mark.parametrize("source", ["smol", "tiny-llama"])
def test_every_position_stands_in_one_block_and_both_lanes_spell_the_text(source):
    given = TypeAdapter(Overlay).validate_python(overlay())
    for lane, boxes in (("pivot", "pivot"), (source, "source")):
        found = [box for block in token_blocks(given, source) for box in getattr(block, boxes)]
        assert [box.index for box in found] == list(range(len(given.positions[lane])))
        assert "".join(box.text for box in found if not box.empty) == given.response
        assert [box.gold for box in found] == [position.gold for position in given.positions[lane]]


def test_partners_are_the_pairs_seen_from_both_sides():
    given = TypeAdapter(Overlay).validate_python(overlay())
    found = token_blocks(given, "smol")
    ours = {box.index: box.partner for block in found for box in block.pivot}
    theirs = {box.index: box.partner for block in found for box in block.source}
    assert ours == {0: 0, 1: None, 2: 1, 3: 3}
    assert theirs == {0: 0, 1: 2, 2: None, 3: 3}


def test_a_position_without_a_place_stays_with_the_one_before_it_and_shows_its_token():
    given = overlay()
    given["positions"]["smol"][1] |= {"start": None, "end": None, "text": "�"}
    given["pairs"]["smol"] = [[0, 0], [3, 3]]
    assert cut(given, "smol") == [([" a", "b", " cd"], [" ab", "�", "d"], True), (["</s>"], ["<end>"], True)]


def test_half_a_character_is_shown_as_its_bytes():
    given = overlay()
    given["response"] = "é"
    place = [
        {"start": 0, "end": 1, "text": "?", "gold": 0.5, "top": []},
        {"start": 1, "end": 2, "text": "?", "gold": 0.5, "top": []},
    ]
    given["positions"], given["pairs"] = {"pivot": place, "smol": place}, {"smol": [[0, 0], [1, 1]]}
    assert cut(given, "smol") == [(["\\xc3"], ["\\xc3"], True), (["\\xa9"], ["\\xa9"], True)]


def test_where_nothing_is_compared_a_block_is_not_matched():
    given = overlay() | {"pairs": {"smol": []}}
    assert {matched for _, _, matched in cut(given, "smol")} == {False}


def test_the_run_has_one_for_each_domain(tmp_path):
    found = read_run(write_run(tmp_path / "run")).overlays
    assert [one.domain for one in found] == ["dates", "lists", "sums"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda o: o["pairs"]["smol"].append([4, 0]), "a pair of 'smol' names a position beyond the 4 and 4"),
        (lambda o: o["pairs"].update(other=[]), "pairs of 'other', but positions of pivot, smol, tiny-llama only"),
        (lambda o: o["positions"].clear(), "positions of no model only"),
    ],
)
def test_pairs_that_name_nothing_are_refused(change, why):
    given = copy.deepcopy(overlay())
    change(given)
    with pytest.raises(ValueError, match=why):
        TypeAdapter(Overlay).validate_python(given)
