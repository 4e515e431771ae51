"""Concepts in text by hand, thresholds and agreements against brute force, and what no unit can exceed."""

from __future__ import annotations

import pytest
import torch

from fusion.analysis.concepts import (
    CONCEPTS,
    IOU_THRESHOLD,
    LargestActivations,
    bound,
    dissect,
    intersection_over_union,
    label_concepts,
)


def held(text, at):
    row = label_concepts(text, [at])[0]
    return {name for name, there in zip(CONCEPTS, row.tolist(), strict=True) if there}


@pytest.mark.parametrize(
    ("before", "after", "concepts"),
    [
        ("a 7", "8", {"digit"}),
        ("it is T", "om", {"upper case"}),
        ("some ", "words", {"white space"}),
        ("a line\n", "", {"white space", "line break"}),
        ("well,", " then", {"punctuation"}),
        ("The end.", " Then", {"punctuation", "end of a sentence"}),
        ("北", "京", {"not Latin", "first word of a sentence"}),
        ("x = y if", " z", {"code keyword"}),
        ("x = y if", "fy", set()),
        ("notif", "", {"first word of a sentence"}),
        ("x. notif", " z", {"first word of a sentence"}),
        ("One. Two", " three", {"first word of a sentence"}),
        ("One. Two three", "", set()),
        ("y\n  return", " 1", {"code keyword", "first word of a sentence"}),
        ("naïve é", "", set()),
        ("", "start", set()),
    ],
)
def test_concepts_hold_where_a_reader_would_say_so(before, after, concepts):
    assert held(before + after, len(before.encode())) == concepts


def test_nothing_holds_within_a_character():
    assert held("北9", 1) == held("北9", 2) == set()
    assert held("北9", 3) == {"not Latin", "first word of a sentence"}
    assert held("🙂 9", 3) == set()


def test_a_long_text_before_changes_nothing_near_by():
    assert held("word " * 400 + "9", 2001) == {"digit"}
    assert held("北京 " * 400 + "x if", len(("北京 " * 400 + "x if").encode())) == {"code keyword"}


@pytest.mark.parametrize("share", [0.005, 0.1, 0.5])
@pytest.mark.parametrize("sizes", [[400], [1, 7, 192, 200], [133] * 3 + [1]])
def test_units_are_on_at_their_largest_values_and_at_no_more_than_the_share(share, sizes):
    values = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    values[:, 4] = values[:, 4].round()  # ties
    values[:, 5] = 0  # a dead unit
    largest = LargestActivations(6, 400, share)
    for part in values.split(sizes):
        largest.add(part)
    for unit in range(6):
        on = set(largest.places[unit][largest.active[unit]].tolist())
        threshold = values[:, unit].sort(descending=True).values[int(share * 400)]
        assert on == set((values[:, unit] > threshold).nonzero()[:, 0].tolist())
        assert len(on) <= share * 400
        assert len(on) == int(share * 400) or unit >= 4
    assert not largest.active[5].any()


def test_agreement_is_intersection_over_union():
    values, concepts = torch.randn(300, 8), torch.rand(300, 5) < torch.tensor([0.02, 0.1, 0.4, 0.0, 1.0])
    largest = LargestActivations(8, 300, 0.1)
    largest.add(values)
    found = intersection_over_union(largest.places, largest.active, concepts)
    for unit in range(8):
        mine = set(largest.places[unit][largest.active[unit]].tolist())
        for concept in range(5):
            theirs = set(concepts[:, concept].nonzero()[:, 0].tolist())
            assert found[unit, concept].item() == pytest.approx(len(mine & theirs) / max(1, len(mine | theirs)))


def run(values, concepts, share=0.05, threshold=IOU_THRESHOLD):
    largest = LargestActivations(values.shape[1], len(values), share)
    for part in values.split(64):
        largest.add(part)
    return dissect(largest, concepts, [f"c{n}" for n in range(concepts.shape[1])], threshold)


@pytest.mark.parametrize("prevalence", [0.01, 0.05, 0.2, 0.5])
def test_no_unit_exceeds_the_bound_and_one_that_is_the_concept_reaches_it(prevalence):
    holds = torch.zeros(1000, 1, dtype=torch.bool)
    holds[torch.randperm(1000)[: int(prevalence * 1000)]] = True
    planted = holds.float() * 10 + torch.rand(1000, 1)
    (found,) = run(torch.cat([torch.randn(1000, 20), planted], dim=1), holds)
    assert found.prevalence == pytest.approx(prevalence)
    assert found.max_iou == pytest.approx(min(0.05, prevalence) / max(0.05, prevalence))
    assert found.best_iou == pytest.approx(found.max_iou)
    (without,) = run(torch.randn(1000, 20), holds)
    assert without.best_iou <= without.max_iou + 1e-9


def test_the_papers_share_and_cut_find_prevalences_between_a_quarter_of_a_thousandth_and_a_tenth():
    assert [bound(0.005, c) > IOU_THRESHOLD for c in (0.00024, 0.00026, 0.005, 0.0999, 0.1001)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert bound(0.005, 0.0) == bound(0.0, 0.1) == 0


def test_a_strictly_increasing_function_of_a_unit_and_the_order_of_units_change_nothing():
    values, concepts = torch.randn(500, 9, dtype=torch.float64).float(), torch.rand(500, 3) < 0.1
    known = run(values, concepts)
    assert run(torch.exp(values) * 3 - 7, concepts) == known
    assert run(values[:, torch.randperm(9)], concepts) == known


def test_a_unit_is_a_detector_of_its_best_concept_alone():
    concepts = torch.zeros(1000, 2, dtype=torch.bool)
    concepts[:50, 0] = True
    concepts[:40, 1] = True
    values = torch.cat([concepts[:, :1].float() + torch.rand(1000, 1) / 2, torch.randn(1000, 5)], dim=1)
    first, second = run(values, concepts, threshold=0.5)
    assert (first.detecting_units, second.detecting_units) == (1, 0)
    assert first.best_iou == 1.0
    assert second.best_iou > 0.5
