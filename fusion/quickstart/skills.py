"""Questions and answers of the quickstart: three small skills, made by rule, the same on every machine.

    sums   "47 + 38 ="                            " eighty-five"
    sort   "sort melon fig cup bear ="            " bear cup fig melon"
    lumi   "in Lumi, old cat sees red bird ="     " vido kesa tora pilon rudon"

and three whose answers have workings (see `worked`), for models that are not tiny.

Lumi is an invented language: verb first, adjectives after their noun and ending in its last vowel, and an -n on both for
the one it is done to.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fusion.quickstart import worked
from fusion.quickstart.tales import Teller

SPLITS = {"pretrain": range(60), "fusion": range(60, 75), "validation": range(75, 80), "heldout": range(80, 100)}
"""Percent of all questions, by hash of the prompt; so no question is ever in two splits, whatever the seed."""
MAX_IDLE_DRAWS = 20_000
"""Draws in a row that bring no new question before a split counts as used up."""


def _words(text: str) -> list[str]:
    return text.split()


def _lexicon(text: str) -> dict[str, str]:
    words = text.replace(",", " ").split()
    return dict(zip(words[::2], words[1::2], strict=True))


UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
SLIPS = (-20, -10, -2, -1, 1, 2, 10, 20)

THINGS = _words(
    "apple anchor arrow barn basket bear bottle bread button cabin camel candle carpet cherry clock cloud copper cotton "
    "cup desk dragon drum eagle engine falcon feather fig flute forest garden ginger glove guitar hammer harbor honey "
    "island ivory jacket jungle kettle kite ladder lantern lemon magnet maple marble melon mirror mountain needle nickel "
    "oasis olive orange paper pepper piano pillow pocket quartz rabbit ribbon rocket saddle shadow silver spoon table "
    "tiger tunnel umbrella valley violin wagon walnut window yarn zebra"
)

NOUNS = _lexicon(
    "cat kesa, dog vumo, bird pilo, fish nare, horse tundo, cow mebe, king orvala, queen selune, child mipo, "
    "farmer gratelo, sailor dunave, baker porima, wolf lukare, mouse pisa, fox renko, judge fesola, "
    "thief barkene, goat zelo, monk runame, owl sugo"
)
ADJECTIVES = _lexicon(
    "old tor, red rud, small min, big galt, wise sofel, slow lind, kind amir, cold frel, quiet silv, brave koraz, "
    "young juvel, hungry famor"
)
VERBS = _lexicon(
    "sees vido, finds trulo, likes pako, follows senko, calls vorlo, helps jutimo, feeds nuro, leaves adelo, "
    "hears akusto, paints mulgo, carries brendo, thanks dako"
)


def make_questions(
    skill: str, count: int, seed: int, label_noise: float = 0.0, split: str = "pretrain"
) -> list[dict[str, str]]:
    """`count` different questions of one skill, as rows of `prompt`, `response`, `domain` (the skill), and `workings`.

    `label_noise` is the chance of each answer to be a wrong one of the same form. It changes neither the questions nor the
    other answers, and the first rows of a longer list are those of a shorter one. Raises ValueError for an unknown
    skill or split, a noise outside 0..1, or more questions than the split holds (`sums`: about 150 for each percent).
    """
    _check("skill", skill, SKILLS)
    _check("split", split, SPLITS)
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise is the share of wrong answers, between 0 and 1; got {label_noise}.")
    questions = _questions(skill, seed, split)
    prompts = [prompt for prompt, _ in zip(questions, range(count), strict=False)]
    if len(prompts) < count:
        raise ValueError(
            f"{skill} has {len(prompts)} questions in split {split}, {count} were asked for; ask for fewer."
        )
    rows = [{"prompt": p, "response": _respond(skill, p, seed, label_noise), "domain": skill} for p in prompts]
    if skill in worked.WORKINGS:  # for response: "{workings}"
        rows = [row | {"workings": worked.WORKINGS[skill](row["prompt"])} for row in rows]
    return rows


def answer(skill: str, prompt: str) -> str:
    """The right response to a prompt of this skill, with its leading space."""
    return SKILLS[skill].answer(prompt)


def split_of(prompt: str) -> str:
    """The split a prompt belongs to, by its SHA-256."""
    percent = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") % 100
    return next(name for name, part in SPLITS.items() if percent in part)


def _questions(skill: str, seed: int, split: str) -> Iterator[str]:
    rng, seen, idle = random.Random(f"{skill}/{split}/{seed}"), set(), 0
    while idle < MAX_IDLE_DRAWS:
        prompt = SKILLS[skill].ask(rng)
        idle += 1
        if prompt not in seen and split_of(prompt) == split:
            seen.add(prompt)
            idle = 0
            yield prompt


def _respond(skill: str, prompt: str, seed: int, label_noise: float) -> str:
    rng, right = (
        random.Random(f"{seed}/{prompt}"),
        answer(skill, prompt),
    )  # of its own, so that noise moves nothing else
    if rng.random() >= label_noise:
        return right
    return next(wrong for wrong in iter(lambda: SKILLS[skill].mistake(prompt, rng), None) if wrong != right)


def _check(what: str, name: str, allowed: dict) -> None:
    if name not in allowed:
        raise ValueError(f"Unknown {what} {name!r}; choose one of {', '.join(allowed)}.")


def _ask_sums(rng: random.Random) -> str:
    a, b = rng.randrange(100), rng.randrange(100)
    return f"{a} + {b} =" if rng.random() < 0.5 else f"{max(a, b)} - {min(a, b)} ="


def _result(prompt: str) -> int:
    a, sign, b, _ = prompt.split()
    return int(a) + int(b) if sign == "+" else int(a) - int(b)


def _mistake_sums(prompt: str, rng: random.Random) -> str:
    return " " + in_words(abs(_result(prompt) + rng.choice(SLIPS)))


def in_words(number: int) -> str:
    """A number from 0 to 999 in English words: 185 is "one hundred eighty-five"."""
    hundreds, rest = divmod(number, 100)
    tens, units = divmod(rest, 10)
    small = UNITS[rest] if rest < 20 else TENS[tens] + (f"-{UNITS[units]}" if units else "")
    if not hundreds:
        return small
    return f"{UNITS[hundreds]} hundred" + (f" {small}" if rest else "")


def _ask_sort(rng: random.Random) -> str:
    return f"sort {' '.join(rng.sample(THINGS, 4))} ="


def _answer_sort(prompt: str) -> str:
    return " " + " ".join(sorted(prompt.split()[1:-1]))


def _mistake_sort(prompt: str, rng: random.Random) -> str:
    return " " + " ".join(rng.sample(prompt.split()[1:-1], 4))


def _ask_lumi(rng: random.Random) -> str:
    kinds = (ADJECTIVES, NOUNS, VERBS, ADJECTIVES, NOUNS)
    return f"in Lumi, {' '.join(rng.choice(list(words)) for words in kinds)} ="


def _answer_lumi(prompt: str) -> str:
    by_adjective, by, verb, of_adjective, of = prompt.split()[2:-1]
    subject, object_ = NOUNS[by], NOUNS[of]
    agent = f"{subject} {ADJECTIVES[by_adjective]}{subject[-1]}"
    return f" {VERBS[verb]} {agent} {object_}n {ADJECTIVES[of_adjective]}{object_[-1]}n"


def _mistake_lumi(prompt: str, rng: random.Random) -> str:
    return _answer_lumi(_ask_lumi(rng))  # what another sentence means


def _ask_tales(rng: random.Random) -> str:
    return f"tell on, {_ask_lumi(rng).removeprefix('in Lumi, ')}"


def _before_the_tale(prompt: str) -> tuple[str, str]:
    """The verb of the sentence that is told on from, and to whom it is done, in Lumi."""
    *_, verb, _adjective, noun, _equals = prompt.split()
    return VERBS[verb], NOUNS[noun]


def _tell(prompt: str) -> str:
    return TELLER.tell(*_before_the_tale(prompt), random.Random(prompt))


def tale_logprob(prompt: str, tale: str) -> float:
    """Log-probability, in nats, that the response to a prompt of `tales` is this one; -inf where it is never told."""
    return TELLER.logprob(tale, *_before_the_tale(prompt))


def _ask_numbers(rng: random.Random) -> str:
    return f"in words, {rng.randrange(1000, 100_000)} ="


def _number_in(prompt: str) -> int:
    return int(prompt.split()[2])


def _thousands_in_words(number: int) -> str:
    thousands, rest = divmod(number, 1000)
    return f" {in_words(thousands)} thousand" + (f" {in_words(rest)}" if rest else "")


def _ask_spell(rng: random.Random) -> str:
    return f"spell {' '.join(rng.sample(THINGS, 2))} ="


def _answer_spell(prompt: str) -> str:
    return " " + ", ".join(" ".join(word) for word in prompt.split()[1:-1])


class _Skill(NamedTuple):
    ask: Callable[[random.Random], str]
    answer: Callable[[str], str]
    mistake: Callable[[str, random.Random], str]


def _worked_skill(ask: Callable[[random.Random], str], work: Callable[[str], str]) -> _Skill:
    def answer_alone(prompt: str) -> str:
        return worked.result_of(work(prompt))

    return _Skill(ask, answer_alone, lambda prompt, rng: worked.mistake(answer_alone(prompt), rng))


TELLER = Teller(list(VERBS.values()), list(NOUNS.values()))
SKILLS = {
    "sums": _Skill(_ask_sums, lambda prompt: " " + in_words(_result(prompt)), _mistake_sums),
    "sort": _Skill(_ask_sort, _answer_sort, _mistake_sort),
    "lumi": _Skill(_ask_lumi, _answer_lumi, _mistake_lumi),
    "numbers": _Skill(
        _ask_numbers,
        lambda prompt: _thousands_in_words(_number_in(prompt)),
        lambda prompt, rng: _thousands_in_words(rng.randrange(1000, 100_000)),
    ),
    "tales": _Skill(_ask_tales, _tell, lambda prompt, rng: TELLER.scramble(_before_the_tale(prompt)[1], rng)),
    "spell": _Skill(_ask_spell, _answer_spell, lambda prompt, rng: _answer_spell(_ask_spell(rng))),
    "running_sum": _worked_skill(worked.ask_running_sum, worked.work_running_sum),
    "shopping": _worked_skill(worked.ask_shopping, worked.work_shopping),
    "variables": _worked_skill(worked.ask_variables, worked.work_variables),
}
