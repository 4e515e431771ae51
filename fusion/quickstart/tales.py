"""Tales in Lumi, told on from a first sentence: no answer is the right one, but how likely each is can be computed.

    "tell on, old cat sees red bird ="    " senko pilo naren, vido nare kesan, ..."

A tale is a Markov chain of four sentences: verb, who does it (whom the sentence before ended with), and to whom. The verb
depends on the verb before, with 3 that may follow; to whom depends on verb and doer, with 4 that may follow for each of 120
pairs. So a hundred tales show the form, and of a pair a few times what follows it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

SENTENCES = 4
TOLD_VERBS = 6
"""Of all verbs, those that tales are told with."""
VERB_CHANCES = (0.6, 0.3, 0.1)
"""Of the verbs that may follow a verb."""
NOUN_CHANCES = (0.5, 0.25, 0.15, 0.1)
"""Of those to whom somebody may do something."""


class Teller:
    """Tells tales of these verbs and nouns, in which each name is used as it is written in a tale."""

    def __init__(self, verbs: Sequence[str], nouns: Sequence[str]) -> None:
        """Draw what follows what, the same on every machine."""
        rng = random.Random("tales")
        self.verbs, self.nouns = list(verbs), list(nouns)
        self.told = self.verbs[:TOLD_VERBS]
        self.next_verbs = {verb: rng.sample(self.told, len(VERB_CHANCES)) for verb in self.verbs}
        self.next_nouns = {
            (verb, noun): rng.sample([other for other in self.nouns if other != noun], len(NOUN_CHANCES))
            for verb in self.told
            for noun in self.nouns
        }

    def tell(self, verb: str, noun: str, rng: random.Random) -> str:
        """A tale that goes on from a sentence with this verb, which ended with this noun."""
        sentences = []
        for _ in range(SENTENCES):
            verb = _draw(self.next_verbs[verb], VERB_CHANCES, rng)
            doer, noun = noun, _draw(self.next_nouns[verb, noun], NOUN_CHANCES, rng)
            sentences.append(f"{verb} {doer} {noun}n")
        return " " + ", ".join(sentences)

    def scramble(self, noun: str, rng: random.Random) -> str:
        """A tale of the same form in which anything may follow anything."""
        sentences = []
        for _ in range(SENTENCES):
            doer, noun = noun, rng.choice(self.nouns)
            sentences.append(f"{rng.choice(self.told)} {doer} {noun}n")
        return " " + ", ".join(sentences)

    def logprob(self, tale: str, verb: str, noun: str) -> float:
        """Log-probability of a tale in nats, given the sentence before it; -inf for one that is never told."""
        total, count = 0.0, 0
        for next_verb, doer, next_noun in _sentences(tale):
            chances = [
                _chance(next_verb, self.next_verbs[verb], VERB_CHANCES),
                float(doer == noun),
                _chance(next_noun, self.next_nouns.get((next_verb, noun), []), NOUN_CHANCES),
            ]
            if not all(chances):
                return -math.inf
            total += sum(map(math.log, chances))
            verb, noun, count = next_verb, next_noun, count + 1
        return total if count == SENTENCES else -math.inf


def _sentences(tale: str) -> Iterator[tuple[str, str, str]]:
    for sentence in tale.strip().split(", "):
        verb, doer, noun = sentence.split()
        yield verb, doer, noun.removesuffix("n")


def _chance(word: str, words: Sequence[str], chances: Sequence[float]) -> float:
    return dict(zip(words, chances, strict=False)).get(word, 0.0)


def _draw(words: Sequence[str], chances: Sequence[float], rng: random.Random) -> str:
    left = rng.random()
    for word, chance in zip(words, chances, strict=True):
        left -= chance
        if left < 0:
            return word
    return words[-1]
