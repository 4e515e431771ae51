"""Policy gradients from sources against a slow estimator on tokens, identities, and what of other texts must not leak in."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from fusion.alignment import align_spans
from fusion.alignment.prefix import match_prefixes
from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows
from fusion.objectives import PolicyGradient, RolloutTargets
from tests.helpers.rollouts import inputs_of, one_to_one
from tests.helpers.rows import rows_of

V, N = 7, 12
EXAMPLE = torch.tensor([0] * 4 + [1] * 5 + [2] * 3)
OWN = [ExampleInfo("a", "e0", "rollouts"), ExampleInfo("b", "e1", "rollouts"), ExampleInfo("a", "e2", "rollouts")]
MIXED = [OWN[0], ExampleInfo("b", "e1", "replay"), OWN[2]]


def logits(seed: int, scale: float = 1.5):
    return scale * torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(seed: int) -> LogitRows:
    return rows_of(logits(seed), 0, torch.arange(N) * 5 % V, EXAMPLE)


def known(**given) -> RolloutTargets:
    """What is known of rollouts whose writer is `rows(2)`, a little moved from the pivot."""
    return RolloutTargets(0.7 * rows(0).gold + 0.3 * rows(2).gold, torch.zeros(3), **given)


def gradient(objective, inputs, weights=None):
    """The gradient of the mean of all terms at each row's log-probability, and the terms."""
    gold = inputs.pivot.gold.detach().requires_grad_()
    inputs = dataclasses.replace(inputs, pivot=dataclasses.replace(inputs.pivot, gold=gold))
    terms, counts = list(objective.terms(inputs)), objective.counts(inputs.targets)
    loss = sum(term.total / max(1, counts[term.name]) for term in terms)
    return torch.autograd.grad(loss, gold)[0], terms


def slow(objective, pivot, sources, targets, weaker, weights, infos):
    """The estimator token by token, as a list of d loss / d log pi(y_t); every token is a span of its own."""
    found, count = [0.0] * N, sum(infos[e].part == "rollouts" for e in EXAMPLE.tolist())
    for t, e in enumerate(EXAMPLE.tolist()):
        if infos[e].part != "rollouts":
            continue
        ratio, total = math.exp(pivot[t] - targets.old_logprobs[t].item()), 0.0
        for name, source in sources.items():
            signal = source[t] - (weaker[name][t] if name in weaker else pivot[t])
            if name in targets.signal_means:
                signal -= targets.signal_means[name][e].item()
            if name in targets.signal_factors:
                signal *= targets.signal_factors[name][e].item()
            advantage = min(max(signal, -objective.clip), objective.clip)
            if objective.beta:
                advantage -= objective.beta * (pivot[t] - targets.reference_logprobs[t].item())
            total += weights[name] * advantage
        if (total > 0 and ratio > 1 + objective.epsilon_high) or (total < 0 and ratio < 1 - objective.epsilon):
            continue
        found[t] = -min(ratio, 1 + objective.epsilon_high) * total / count
    return torch.tensor(found, dtype=torch.float64)


SCALES = {
    "signal_means": {"one": torch.tensor([0.3, -0.2, 0.3]), "two": torch.tensor([0.1, 0.0, 0.1])},
    "signal_factors": {"one": torch.tensor([2.0, 0.5, 2.0])},
}


@pytest.mark.parametrize("infos", [OWN, MIXED], ids=["own texts alone", "beside others"])
@pytest.mark.parametrize("scales", [{}, SCALES], ids=["as it is", "scaled"])
@pytest.mark.parametrize("weaker", [{}, {"one": 4}, {"one": 4, "two": 5}], ids=str)
@pytest.mark.parametrize(
    "objective",
    [PolicyGradient(), PolicyGradient(clip=0.4, epsilon=0.1, epsilon_high=0.1, beta=0.5)],
    ids=["loose", "tight"],
)
def test_it_is_the_estimator_on_tokens_where_both_models_share_theirs(objective, weaker, scales, infos):
    weaker = {name: rows(seed).gold for name, seed in weaker.items()}
    targets = known(reference_logprobs=rows(6).gold, weaker_gold=weaker, **scales)
    pivot, sources, weights = rows(0), {"one": rows(1), "two": rows(3)}, {"one": 0.75, "two": 0.25}
    inputs = inputs_of(pivot, sources, infos, targets)
    there = {n: one_to_one(pivot, each, torch.full((N,), weights[n])) for n, each in sources.items()}
    inputs = dataclasses.replace(inputs, targets=dataclasses.replace(inputs.targets, sources=there))
    found, terms = gradient(objective, inputs)
    golds = {name: each.gold.tolist() for name, each in sources.items()}
    expected = slow(
        objective, pivot.gold.tolist(), golds, targets, {n: w.tolist() for n, w in weaker.items()}, weights, infos
    )
    torch.testing.assert_close(found, expected)
    assert [term.name for term in terms] == ["policy_gradient/one", "policy_gradient/two"]
    own = torch.tensor([infos[e].part == "rollouts" for e in EXAMPLE.tolist()])
    assert torch.equal(terms[0].row_weight, 0.75 * own.double())
    assert found[own].abs().max() > 0.01


def test_a_source_that_says_what_the_pivot_says_teaches_nothing():
    found, (term,) = gradient(PolicyGradient(), inputs_of(rows(0), {"one": rows(0)}, OWN, known()))
    assert found.abs().max() == 0
    assert term.total == 0


def test_two_sources_that_contradict_each_other_cancel_out_whatever_the_ratio():
    """Above the bound PPO would clip the source that wants more and not the one that wants less; the sum decides."""
    pivot = rows(0)
    more, less = (dataclasses.replace(pivot, gold=pivot.gold + sign) for sign in (1.0, -1.0))
    far = dataclasses.replace(known(), old_logprobs=pivot.gold - 3)
    found, terms = gradient(PolicyGradient(), inputs_of(pivot, {"more": more, "less": less}, OWN, far))
    assert found.abs().max() < 1e-12
    assert terms[0].total.abs() > 0.1
    assert [f"policy_gradient/{name}" in term.metrics for term in terms for name in ("ratio", "signal/less")] == [
        True, False, False, True,
    ]  # fmt: skip


def test_the_order_of_sources_changes_nothing():
    sources = {"one": rows(1), "two": rows(3)}
    there, _ = gradient(PolicyGradient(), inputs_of(rows(0), sources, OWN, known(**SCALES)))
    back, _ = gradient(PolicyGradient(), inputs_of(rows(0), dict(reversed(sources.items())), OWN, known(**SCALES)))
    torch.testing.assert_close(there, back, rtol=0, atol=1e-15)


def test_micro_batches_of_unequal_length_add_up_to_one():
    objective, targets = PolicyGradient(), known(**SCALES)
    whole = inputs_of(rows(0), {"one": rows(1)}, OWN, targets)
    sums, counts = torch.zeros((), dtype=torch.float64), 0
    for part in (slice(0, 4), slice(4, 12)):
        known_here = dataclasses.replace(targets, old_logprobs=targets.old_logprobs[part])
        inputs = inputs_of(rows(0).select(part), {"one": rows(1).select(part)}, OWN, known_here)
        (term,) = objective.terms(inputs)
        sums, counts = sums + term.total, counts + objective.counts(inputs.targets)[term.name]
    (term,) = objective.terms(whole)
    assert counts == objective.counts(whole.targets)[term.name] == N
    assert sums.item() == pytest.approx(term.total.item())


def spanned(pivot_prefix, source_prefix, pivot_gold, source_gold):
    """A batch of one text that both models cut at these bytes."""
    pivot, source = (
        dataclasses.replace(
            rows_of(torch.zeros(len(prefix), V, dtype=torch.float64), 0),
            prefix=torch.tensor(prefix),
            gold=torch.tensor(gold, dtype=torch.float64),
        )
        for prefix, gold in ((pivot_prefix, pivot_gold), (source_prefix, source_gold))
    )
    infos, old = [ExampleInfo("a", "e", "rollouts")], pivot.gold.clone()
    inputs = inputs_of(pivot, {"one": pivot}, infos, RolloutTargets(old, torch.zeros(1)))
    pairs = match_prefixes(pivot, source)
    there = dataclasses.replace(
        inputs.targets.sources["one"],
        rows=source,
        pairs=pairs,
        spans=align_spans(pivot, source, pairs),
        weight=torch.arange(1.0, len(pairs) + 1),
    )
    return dataclasses.replace(inputs, targets=dataclasses.replace(inputs.targets, sources={"one": there}))


def test_every_token_of_a_span_has_the_whole_advantage_and_the_weight_of_its_first_pair():
    # the pivot reads a|b|cd|end, the source ab|c|d|end
    inputs = spanned([0, 1, 2, 4], [0, 2, 3, 4], [-1.0, -2.0, -0.5, -0.2], [-1.5, -0.1, -0.3, -0.25])
    found, (term,) = gradient(PolicyGradient(), inputs)
    first, second, end = -1.5 + 3.0, -0.4 + 0.5, -0.25 + 0.2
    expected = -torch.tensor([first, first, 2 * second, 3 * end], dtype=torch.float64) / 4
    torch.testing.assert_close(found, expected)
    assert term.row_weight is not None
    assert term.row_weight.tolist() == [1, 1, 2, 3]
    assert term.metrics["policy_gradient/signal/one"].total.item() == pytest.approx(first + second + end)


def test_tokens_in_no_span_take_no_step_and_are_not_in_the_mean():
    # the text was cut: both models read a|..., and their last tokens begin at different bytes
    inputs = spanned([0, 1, 2], [0, 1, 3], [-1.0, -2.0, -0.5], [-0.5, -0.1, -0.3])
    found, (term,) = gradient(PolicyGradient(), inputs)
    assert found.tolist() == pytest.approx([-0.5, 0, 0])
    counts = PolicyGradient().counts(inputs.targets)
    assert counts == {"policy_gradient": 3, "policy_gradient/one": 1, "policy_gradient/comparable/one": 1}
    assert term.metrics["policy_gradient/comparable/one"].total == 1


def test_a_source_that_reads_few_texts_is_not_louder_there():
    """The mean is over the tokens that any source can be compared at, for each of the sources."""
    inputs = inputs_of(rows(0), {"one": rows(1), "two": rows(3)}, OWN, known())
    two, absent = inputs.targets.sources["two"], EXAMPLE != 0
    spans = dataclasses.replace(two.spans, pivot_span=two.spans.pivot_span.masked_fill(absent, -1))
    sources = inputs.targets.sources | {"two": dataclasses.replace(two, spans=spans)}
    targets = dataclasses.replace(inputs.targets, sources=sources)
    assert PolicyGradient().counts(targets) == {
        "policy_gradient": N,
        "policy_gradient/one": N,
        "policy_gradient/two": N,
        "policy_gradient/comparable/one": N,
        "policy_gradient/comparable/two": 4,
    }


def test_nan_of_other_texts_never_reaches_a_gradient():
    """Of texts that the pivot did not write nothing is known: neither the writer, nor a relative, nor the start."""
    other = EXAMPLE == 1
    clean = known(reference_logprobs=rows(6).gold, weaker_gold={"one": rows(4).gold})
    holes = dataclasses.replace(
        clean,
        old_logprobs=clean.old_logprobs.masked_fill(other, torch.nan),
        reference_logprobs=rows(6).gold.masked_fill(other, torch.nan),
        weaker_gold={"one": rows(4).gold.masked_fill(other, torch.nan)},
    )
    source = dataclasses.replace(rows(1), gold=rows(1).gold.masked_fill(other, torch.nan))
    objective = PolicyGradient(beta=0.5)
    expected, _ = gradient(objective, inputs_of(rows(0), {"one": rows(1)}, MIXED, clean))
    found, (term,) = gradient(objective, inputs_of(rows(0), {"one": source}, MIXED, holes))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (found[other] == 0).all()
    assert all(each.total.isfinite() for each in term.metrics.values())


@pytest.mark.parametrize(
    ("hole", "message"),
    [
        ({"old_logprobs": rows(0).gold.masked_fill(EXAMPLE == 2, torch.nan)},
         r"3 of 12 tokens of this batch's rollouts, the first in example e2, .* under the pivot that wrote it \(NaN\). Let"),
        ({"reference_logprobs": rows(0).gold.masked_fill(EXAMPLE == 2, torch.nan)},
         r"3 of 12 .* example e2, have no log-probability under the pivot before the first round \(NaN\)"),
        ({"weaker_gold": {"one": rows(0).gold.masked_fill(EXAMPLE == 1, torch.nan)}},
         r"source one, or its weaker relative, gives no log-probability \(NaN\) to 5 of 12 .* example e1. Read"),
        ({"reference_logprobs": None}, r"policy_gradient.beta is 0.5, and what the pivot said .* set beta to 0"),
    ],
)  # fmt: skip
def test_what_is_not_known_of_a_text_of_the_pivot_is_refused_by_name(hole, message):
    given = dataclasses.replace(known(reference_logprobs=rows(6).gold), **hole)
    with pytest.raises(ValueError, match=message):
        list(PolicyGradient(beta=0.5).terms(inputs_of(rows(0), {"one": rows(1)}, OWN, given)))


def test_a_batch_without_rollouts_has_no_values_and_logs_the_same_names():
    replay = [info._replace(part="replay") for info in OWN]
    inputs = inputs_of(rows(0), {"one": rows(1)}, replay, known())
    unknown = dataclasses.replace(inputs, targets=dataclasses.replace(inputs.targets, rollouts=None))
    _, (full,) = gradient(PolicyGradient(), inputs_of(rows(0), {"one": rows(1)}, OWN, known()))
    for given in (inputs, unknown):
        found, (term,) = gradient(PolicyGradient(), given)
        assert set(PolicyGradient().counts(given.targets).values()) == {0}
        assert term.total == found.abs().max() == 0
        assert term.metrics.keys() == full.metrics.keys()
    written = dataclasses.replace(unknown, targets=dataclasses.replace(unknown.targets, examples=OWN))
    with pytest.raises(
        ValueError, match="Example e0 is a text that the pivot wrote, and `BatchTargets.rollouts` is None"
    ):
        list(PolicyGradient().terms(written))


def test_what_is_logged_are_means_over_the_tokens_of_rollouts():
    pivot = rows(0)
    ratio = torch.tensor([0.2, 1.0, 3.0, 1.5] * 3, dtype=torch.float64)
    source = dataclasses.replace(pivot, gold=pivot.gold + torch.tensor([-1.0, 1.0, 1.0, -1.0] * 3))
    given = RolloutTargets(pivot.gold - ratio.log(), torch.zeros(3), pivot.gold - 0.1)
    _, (term,) = gradient(PolicyGradient(), inputs_of(pivot, {"one": source}, OWN, given))
    counts = PolicyGradient().counts(inputs_of(pivot, {"one": source}, OWN, given).targets)
    means = {name: each.total.item() / counts[each.count] for name, each in term.metrics.items()}
    assert means == pytest.approx(
        {
            "policy_gradient/ratio": ratio.mean().item(),
            "policy_gradient/clip_ratio": 0.5,  # 0.2 on its way down, 3.0 on its way up
            "policy_gradient/kl_old": (ratio * ratio.log() - ratio + 1).mean().item(),
            "policy_gradient/kl": ratio.mean().item() * (math.exp(-0.1) - 1 + 0.1),
            "policy_gradient/comparable/one": 1.0,
            "policy_gradient/signal/one": 0.0,
        }
    )


def test_bfloat16_rows_far_below_keep_their_ratio():
    """At -40 nats bfloat16 knows steps of a quarter: a ratio computed in it would be off by as much."""
    gold = torch.tensor([-40.0, -0.01, -7.3, -39.9], dtype=torch.bfloat16)
    pivot = dataclasses.replace(rows_of(torch.zeros(4, V, dtype=torch.bfloat16), 0), gold=gold)
    source = dataclasses.replace(rows_of(torch.zeros(4, V), 0), gold=torch.tensor([-38.5, -30.0, -7.1, -40.0]))
    given = RolloutTargets(gold.float() - 0.125, torch.zeros(1))
    inputs = inputs_of(pivot, {"one": source}, [ExampleInfo("a", "e", "rollouts")], given)
    found, (term,) = gradient(PolicyGradient(), inputs)
    assert found.dtype == term.total.dtype == torch.bfloat16
    expected = -math.exp(0.125) * (source.gold - gold.float()).clamp(-5, 5) / 4
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0)
