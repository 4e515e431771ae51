"""How good the pivot's own answers are after each round, on validation prompts, and which round is kept."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fusion.data.chat_tokens import Prompt
from fusion.data.example import Example
from fusion.models import loading
from fusion.responses import EndedCheck, ResponseStore
from fusion.responses.base import Check
from fusion.responses.rollouts import Rollout, read_rollout
from fusion.runtime import distributed
from fusion.runtime.run_file import RoundScore
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_formats
from fusion.stages.respond.answers import answering_key, encoded_prompts, write_answers
from fusion.stages.rounds.context import rounds_of
from fusion.stages.rounds.gap import keep_pass_rates
from fusion.stages.rounds.kept import REDO
from fusion.stages.rounds.stop import declared_ends
from fusion.stages.rounds.texts import PROMPTS_AT_ONCE, WRITER, comparison, judge


def score_round(run: RunContext, number: int, model: Path) -> tuple[list[RoundScore], bool]:
    """Let the model after round `number` answer the validation prompts; its scores, and whether there was something to do."""
    folder = run.config.folder / "rounds" / "validation" / str(number)
    context = _with_pivot(run, model)
    prompts = {example.prompt_id: example for example in run.validation_examples}
    decoding = rounds_of(run).decoding(number, run.config.seed, validation=True)
    encoded = encoded_prompts(context, WRITER, prompts)
    key = {**answering_key(context, WRITER, encoded), "decoding": asdict(decoding)}
    store = ResponseStore(folder, key, list(prompts), shard_size=PROMPTS_AT_ONCE, redo=REDO)
    did = write_answers(context, WRITER, store, encoded, decoding, lambda _, completion: list(completion.ids))
    scores = _scores(context, store.read(), encoded)
    with distributed.main_process_first():
        if distributed.is_main_process():
            keep_pass_rates(run, number, scores)
    return scores, did


def _with_pivot(run: RunContext, model: Path) -> RunContext:
    pivot = run.config.pivot.model_copy(update={"path": str(model), "revision": None})
    context = dataclasses.replace(run, config=run.config.model_copy(update={"pivot": pivot}))
    found = {**run.fingerprints, WRITER: loading.model_fingerprint(pivot.ref)}
    vars(context).update(tokenizers=run.tokenizers, models={**run.models, WRITER: pivot}, fingerprints=found)
    return context


def _scores(context: RunContext, answers: Mapping[str, Any], prompts: Mapping[str, Prompt]) -> list[RoundScore]:
    domains = list(dict.fromkeys(example.domain for example in context.validation_examples))
    rollouts = {id: _rollouts(context, id, answers[id], prompts[id]) for id in answers}
    return [_score(context, domain, rollouts) for domain in domains]


def _score(context: RunContext, domain: str, rollouts: Mapping[str, list[Rollout]]) -> RoundScore:
    examples = [example for example in context.validation_examples if example.domain == domain]
    judged = [judge(each, *_compared(context, each), rollouts[each.prompt_id]) for each in examples]
    texts = [text for each in judged for text in each]
    return RoundScore(
        domain,
        len(examples),
        rounds_of(context).validation_generations,
        pass_at_1=statistics.fmean(bool(text.passed) for text in texts),
        pass_at_n=statistics.fmean(any(text.passed for text in each) for each in judged),
        ended=statistics.fmean(text.rollout.end is not None for text in texts),
        tokens=statistics.fmean(len(text.rollout.ids) for text in texts),
        sample=texts[0].rollout.text,
        prompt=examples[0].prompt,
        sample_passed=texts[0].passed,
    )


def _rollouts(context: RunContext, id: str, written: Sequence[Sequence[int]], prompt: Prompt) -> list[Rollout]:
    """Read answers as those to training prompts are read: without the space that belongs to the prompt."""
    example = next(each for each in context.validation_examples if each.prompt_id == id)
    tokenizer, form = context.tokenizers[WRITER], prompt_formats(context, WRITER)(example, example.messages)
    ends = declared_ends(context, form)
    return [read_rollout(tokenizer, ids, ends, form.stop_texts, prompt.lead) for ids in written]


def _compared(context: RunContext, example: Example) -> tuple[Example, Check]:
    """An answer to a validation prompt must pass what answers to training prompts of its domain must, as far as they do."""
    train = sorted(context.config.data.train, key=lambda data: data.is_judged)  # of a domain the last counts
    checks = {data.domain: data.check for data in train}
    return comparison(example, checks.get(example.domain, EndedCheck()), {example.prompt_id: example.response})


def best_round(scores: Sequence[Sequence[RoundScore]]) -> int:
    """Return the round whose answers pass most often, each domain counting alike; of equals the earliest."""
    means = [statistics.fmean(each.pass_at_1 for each in of_round) for of_round in scores]
    return means.index(max(means))
