"""Which answers are compared: pairs of a right and a wrong one to one prompt, drawn by the seed and kept in `pairs`."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fusion.core.text_files import read_object
from fusion.data.example import Example
from fusion.responses import PASSES, example_from_json, example_to_json, read_eligibility
from fusion.runtime import distributed
from fusion.runtime.artifacts import artifact_key, claim_artifact, fingerprint, mark_complete, write_text
from fusion.runtime.console import show
from fusion.runtime.run_file import PairCounts
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.encodings import encode_examples
from fusion.stages.preferences.answers import JudgedAnswer, judged_answers
from fusion.stages.prompts import prompt_format
from fusion.stages.rounds.texts import WRITER
from fusion.training.preferences import PreferencePair

if TYPE_CHECKING:
    from fusion.stages.preferences.context import PreferenceContext

REDO = "fusion preferences"
"""The command that makes again what belongs to preferences."""

MORE = (
    "More of both come from a higher data.responses.samples (with a temperature) or rounds.num_generations, or from more "
    "prompts; or leave preferences out."
)
"""The way out where there are no pairs."""
MORE_OF_ITS_OWN = (
    "More pairs come from a higher rounds.num_generations or more prompts; or choose dpo, which takes all answers."
)
"""The way out where pairs are of the pivot's own answers."""

Answers = tuple[JudgedAnswer, ...]
"""The right and the wrong answer of a pair, in this order; behind them a right one of a source, where one is asked for."""


def make_pairs(context: PreferenceContext) -> bool:
    """Choose the pairs and keep their answers; whether there was something to do.

    Raises ValueError where there is none, with how many answers of each domain are right and wrong.
    """
    folder, settings, run = context.config.folder / "pairs", context.preferences, context.run
    rounds = range(1, run.config.rounds.count + 1) if run.config.rounds else ()
    key = {
        "answers": artifact_key(run.config.folder / CHOSEN) if run.has_generated_responses else None,
        "texts": [artifact_key(run.config.folder / "rounds" / str(number) / "texts") for number in rounds],
        "pairs_per_prompt": settings.pairs_per_prompt,
        "same_writer": settings.same_writer,
        "own_answers": context.own_answers,
        "readers": {name: prompt_format(context, name).key() for name in context.readers},
        "max_length": context.config.data.max_length,
        "seed": context.config.seed,
    }
    with distributed.main_process_first():
        if claim_artifact(folder, key, REDO):
            return False
        answers = judged_answers(run)
        pairs = [pair for _, of in _by_prompt(_readable(context, answers)) for pair in _drawn(context, of)]
        paired = [each for each in answers if WRITER in each.writers] if context.own_answers else answers
        counts = _counts(paired, pairs)
        if not pairs:
            said = ", ".join(f"{each.right} and {each.wrong} in {each.domain}" for each in counts)
            three = " of the pivot, with a right one of a source," if context.own_answers else ""
            whose = " of the pivot" if context.own_answers else ""
            raise ValueError(
                f"There is no pair of a right and a wrong answer{three} to one prompt that all can read. Right and wrong "
                f"answers{whose}: {said}. {MORE_OF_ITS_OWN if context.own_answers else MORE}"
            )
        write_text(folder / "pairs.json", json.dumps(_to_json(pairs)))
        mark_complete(folder, counts=[asdict(each) for each in counts])
        whose = " of the pivot: wrpo compares its own" if context.own_answers else ""
        show(
            f"  {each.domain}: {each.pairs} pair{'' if each.pairs == 1 else 's'} of {each.right} right and {each.wrong} wrong "
            f"answers{whose}"
            for each in counts
        )
    return True


def pair_counts(context: PreferenceContext) -> list[PairCounts]:
    """How many answers and pairs each domain has, once they are chosen."""
    return [PairCounts(**each) for each in read_object(context.config.folder / "pairs" / "done.json")["counts"]]


def refuse_without_pairs(run: RunContext) -> None:
    """Raise ValueError where sources' answers, which are all there will be, can give no pair: before anything is trained."""
    if run.config.preferences is None or run.config.rounds is not None:
        return
    shares = read_eligibility(run.config.folder / CHOSEN / PASSES, run.responding.sources).values()
    if not any(max(each) > 0 and min(each) < 1 for each in shares):
        right = sum(min(each) == 1 for each in shares)
        raise ValueError(
            f"preferences compares right with wrong answers to one prompt, and no prompt has both: of {len(shares)} prompts "
            f"all answers to {right} pass their check, and none to the others. {MORE}"
        )


def read_pairs(context: PreferenceContext) -> tuple[list[Example], list[PreferencePair]]:
    """Return the answers that `make_pairs` kept, and which of them are pairs."""
    stored = json.loads((context.config.folder / "pairs" / "pairs.json").read_text())
    return [example_from_json(each) for each in stored["answers"]], [PreferencePair(*each) for each in stored["pairs"]]


def draw_pairs(
    answers: Sequence[JudgedAnswer], count: int, seed: int, *, same_writer: bool, own_answers: bool
) -> list[Answers]:
    """Draw up to `count` pairs among the answers to one prompt; the one first whose answers have been drawn least often.

    With `own_answers` both are the pivot's own, and a right one of a source stands behind them: another text if there is one.
    """
    ranked = sorted(_possible(answers, same_writer, own_answers), key=lambda pair: _rank(pair, seed))
    drawn: list[Answers] = []
    used: Counter[str] = Counter()
    while ranked and len(drawn) < count:
        pair = min(ranked, key=lambda each: sum(used[answer.example.id] for answer in each))
        ranked.remove(pair)
        used.update(answer.example.id for answer in pair)
        drawn.append(pair)
    return drawn


def _possible(answers: Sequence[JudgedAnswer], same_writer: bool, own_answers: bool) -> Iterator[Answers]:
    right, wrong = ([each for each in answers if each.passed == passed] for passed in (True, False))
    if not own_answers:
        yield from (pair for pair in itertools.product(right, wrong) if not same_writer or _writer_in_common(pair))
        return
    own_right, own_wrong = ([each for each in some if WRITER in each.writers] for some in (right, wrong))
    of_sources = [each for each in right if each.writers - {WRITER}]
    yield from itertools.product(own_right, own_wrong, of_sources)


def _writer_in_common(pair: Answers) -> bool:
    return bool(pair[0].writers & pair[1].writers)


def _rank(pair: Answers, seed: int) -> tuple[bool, str]:
    return pair[0] is pair[-1], fingerprint({"pair": [seed, *(answer.example.id for answer in pair)]})


def _drawn(context: PreferenceContext, answers: Sequence[JudgedAnswer]) -> list[Answers]:
    settings = context.preferences
    how = {"same_writer": settings.same_writer, "own_answers": context.own_answers}
    return draw_pairs(answers, settings.pairs_per_prompt, context.config.seed, **how)


def _by_prompt(answers: Sequence[JudgedAnswer]) -> list[tuple[str, list[JudgedAnswer]]]:
    found: dict[str, list[JudgedAnswer]] = {}
    for answer in answers:
        found.setdefault(answer.example.prompt_id, []).append(answer)
    return list(found.items())


def _readable(context: PreferenceContext, answers: Sequence[JudgedAnswer]) -> list[JudgedAnswer]:
    """The answers to prompts that have right and wrong ones, as far as every reader can read them whole."""
    mixed = [each for _, of in _by_prompt(answers) if len({a.passed for a in of}) == 2 for each in of]
    alike = dataclasses.replace(context)
    vars(alike).update(
        train_examples=[each.example for each in mixed]
    )  # what prompts of sources that look ahead are made of
    return [each for each in mixed if all(_reads(alike, name, each.example) for name in context.readers)]


def _reads(context: PreferenceContext, name: str, example: Example) -> bool:
    """Whether a model has tokens for an answer and room for all of it: half of one has another probability."""
    try:
        return not encode_examples(context, name, [example]).truncated.any()
    except ValueError:
        return False


def _counts(answers: Sequence[JudgedAnswer], pairs: Sequence[Answers]) -> list[PairCounts]:
    domains = dict.fromkeys(answer.example.domain for answer in answers)
    passed = Counter((answer.example.domain, answer.passed) for answer in answers)
    chosen = {each: [pair for pair in pairs if pair[0].example.domain == each] for each in domains}
    return [
        PairCounts(each, passed[each, True], passed[each, False], len(chosen[each]), **_sample(chosen[each]))
        for each in domains
    ]


def _sample(pairs: Sequence[Answers]) -> dict[str, str]:
    """The first pair as the report shows it."""
    if not pairs:
        return {}
    right, wrong, *_ = pairs[0]
    return {
        "prompt": right.example.prompt,
        "chosen": right.example.response,
        "rejected": wrong.example.response,
        "chosen_by": _writers(right),
        "rejected_by": _writers(wrong),
    }


def _writers(answer: JudgedAnswer) -> str:
    return "+".join(sorted(answer.writers))


def _to_json(pairs: Sequence[Answers]) -> dict[str, Any]:
    answers = {answer.example.id: answer for pair in pairs for answer in pair}
    place = {id: number for number, id in enumerate(answers)}
    lines = [example_to_json(each.example, _writers(each)) for each in answers.values()]
    return {"answers": lines, "pairs": [[place[answer.example.id] for answer in pair] for pair in pairs]}
