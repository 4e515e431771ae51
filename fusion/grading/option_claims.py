"""Places of a text that say which option is right: `the answer is B`, `B is correct`, `I choose (B)`, `so B`, `not A but B`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

WORDS_FOR_IT = (
    "answers?", r"ans\.?", "choice", "option", "selection", "letter", "guess", "response", "statement",
    r"the\s+(?:correct|right|best)", r"(?:correct|right|best)\s+one",
)  # fmt: skip
IN_OTHER_LANGUAGES = (
    r"\b(?:réponse|respuesta|antwort|risposta|resposta|ответ|odpowiedź|antwoord)\b(?:\s+(?:correct|corre[ct]?t|richtig|rett|juist)\w*)?"
    "|答案|答え|正解|정답|答"
)
NOUN = (
    rf"(?:\b(?:{'|'.join(WORDS_FOR_IT)})\b(?:\s+(?:left|remaining|that\s+(?:is|remains|fits|applies)(?:\s+\w+)?))?"
    rf"|(?:{IN_OTHER_LANGUAGES}))"
)
BE = (
    r"(?:is|are|was|be|to\s+be|(?:would|should|must|will|could|may|might|has\s+to|seems\s+to|appears\s+to)\s+be|'s"
    r"|(?:est|es|ist|è|é|jest)\b(?:\s+(?:la|le|el|il|o|a|die|der|das)\b)?(?:\s+(?:letra|lettre|lettera|option|opci[óo]n))?|=|:|->|→|⇒|-|–|—|是|は|为|選|选)"
)
ADVERBS = r"clearly|therefore|thus|likely|probably|most|definitely|simply|indeed|either|both"
FILLER = rf"(?:\s|:|,|=|\b(?:{ADVERBS}|the|an?|letter|option|choice|answer|correct|statement)\b(?=\s+\(?[A-Z]\b))*"
RIGHT = (
    r"(?:(?:the|an?|most|my|our)\s+)*(?:only\s+|\w*likely\s+|\w+ly\s+)?"
    r"(?:correct|right|best|better\s+(?:one|choice|option|answer)|true|accurate|appropriate|answer|proper|remaining|one\s+that)"
)
CHOOSING = (
    "choose", "chose", "say", "probably", "certainly", "definitely", "pick(?:ed)?",
    "select(?:ed)?",
    r"go(?:ing)?\s+with", r"opt\s+for", r"settle\s+on", r"vote\s+for", r"(?:it|that|this)\s+(?:is|(?:would|must|should)\s+be)",
    "it's", r"(?:that|which|this)\s+leaves(?:\s+us)?(?:\s+(?:with|only))*", r"leaving(?:\s+us)?(?:\s+(?:with|only))*",
)  # fmt: skip
SO = r"(?:^|[\n.;!,—-][ \t]*)(?:so|thus|hence|therefore|(?:in\s+)?conclusion|final(?:ly)?|=>|⇒|→|∴)\s*[,:]?\s*"
OF_THE_QUESTION = r"(?:\s+(?:here|(?:to|for)\s+(?:this|the)\s+question|that\s+\w+\s+\w+))?"
BEFORE_A_LETTER = (
    rf"{NOUN}[\"']?\s*(?:\((?!.?\))[^)\n]*\))?{OF_THE_QUESTION}\s*,?\s*{BE}{FILLER}\s*[\"'“]?",
    rf"\b(?:{'|'.join(CHOOSING)}){FILLER}\s*",
    SO,
    rf"\b(?:correct|right|best)\s+{NOUN}\s*",
    r"\b(?:correct|right)\s*:\s*",
    r"\b(?:I|we)\s+(?:think|believe|guess|suspect)\s+(?:that\s+)?(?=\W?[A-Z]\W?\s*(?:$|[.,;!\n]|because\b|since\b))",
    r"(?<!not )(?<!n't )\b(?:match(?:es)?|fits|corresponds\s+(?:to|with)|agrees\s+with)\s+(?:the\s+)?(?:answer\s+)?"
    r"(?:choice|option|answer)\s*",
    r"\bonly[ \t]+(?:option[ \t]+)?",
    r"(?<!不)[选選]\s*(?:择|擇|项|項)?\s*:?\s*",
)
"""What may stand before the letter that it says is right."""
SMALL = r"(?:because|since|is\s+(?:the\s+)?(?:correct|right|best|true))\b"
"""What stands after a small letter that is an option."""
WRONG = r"incorrect|wrong|false|not|isn't|each|every|any|worst|least\s+likely"
AFTER_AN_A = r"because|since|as\b|due|for\b|and\b|or\b|not\b|but\b|rather|instead|is\b|\("
"""What stands after the option A, and not after the article."""


@dataclass(frozen=True)
class Claim:
    """A place that says which option is right."""

    start: int
    letters: tuple[str, ...]
    """Several where it wavers between them."""


def letter_pattern(letters: str) -> str:
    """Match a letter by itself, in brackets or before a bracket or not; an article or a pronoun is no letter."""
    small = letters.lower()
    return (
        rf"(?:[(\[{{\"'“]\s?([{letters}{small}])\s?[)\]}}\"'”]"  # in brackets or quotes, small or not
        rf"|(?<![A-Za-z0-9'])([{letters}])(?![A-Za-z0-9_À-ɏ'’]|-\w)(?!\s+(?:few|lot|kind|type|small|large|good|single)\b)"
        rf"|(?<![A-Za-z0-9'])([{small}])(?=\s*[).:](?:\s|$)|\s*$|\s*\n|\s+{SMALL}))"
    )


def last_claim(text: str, letters: str) -> Claim | None:
    """The last place of a text that says which of the options `letters` is right."""
    return max(_claims(text, letters), key=lambda claim: claim.start, default=None)


def claim_at(text: str, place: int, letters: str) -> Claim | None:
    """The letters that stand at `place`: one, or those that `or`, `and` or a comma join to it."""
    letter = letter_pattern(letters)
    first = re.match(letter, text[place:])
    if first is None or _is_article(text, place, first):
        return None
    found, end = [_found(first)], place + first.end()
    joint = rf"(?:\s*[).:])?\s*(?:,|/|,?\s*\b(?:and|or|nor)\b|&)\s*(?:(?:also|maybe|possibly|perhaps|option)\s+)*(?={letter})"
    while (more := re.match(joint, text[end:])) and (other := re.match(letter, text[end + more.end() :])):
        after = text[end + more.end() + other.end() :]
        if _is_article(text, end + more.end(), other) or re.match(
            r"\s+(?:is|are)\s+(?:false|wrong|incorrect|not)\b", after
        ):
            break
        found.append(_found(other))
        end += more.end() + other.end()
    return Claim(place, tuple(found))


def is_denied(text: str, place: int) -> bool:
    """Whether what stands at `place` is said of wrong options, or of all: `incorrect option is`, `each option:`."""
    before = rf"\b(?:{WRONG})\s+(?:(?:the|an?|correct|right)\s+)*$"
    return bool(re.search(before, text[:place], flags=re.IGNORECASE))


def _claims(text: str, letters: str) -> Iterator[Claim]:
    letter = letter_pattern(letters)
    rather = rf"\b(?:not|isn't)\s+{letter}\s*[,.]?\s*(?:but|it\s+is|it's)\s+(?:rather\s+)?"
    for pattern in (*BEFORE_A_LETTER, rather):
        for match in re.finditer(rf"{pattern}(?={letter})", text, flags=re.IGNORECASE | re.MULTILINE):
            claim = claim_at(text, match.end(), letters)
            if claim is not None and not is_denied(text, match.start()):
                yield claim
    named = rf"{letter}(?:[).:]\s[^.;\n]{{0,60}}?)?\s*"
    ends_in_is = r"(?<!this )(?<!This )(?<!it )(?<!It )\bis[.!]?\s*$"
    called_right = rf"{named}(?:(?:{BE}|seems|appears|looks)\s+{RIGHT}\b|{ends_in_is})|{letter}\s+remains\b"
    for match in re.finditer(called_right, text):
        if not re.match(r"\s*(?:in|only if)\b", text[match.end() :]) and not _is_joined(text, match.start(), letter):
            yield Claim(match.start(), (_found(match),))


def _found(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group).upper()


def _is_article(text: str, place: int, match: re.Match[str]) -> bool:
    """Whether an A stands before a word: `The answer is A physicist`, but not `A because`."""
    rest = text[place + match.end() :]
    return match[0] in ("A", "a") and bool(re.match(rf"\s+(?!{AFTER_AN_A})[a-z0-9]+", rest))


def _is_joined(text: str, place: int, letter: str) -> bool:
    """Whether another letter or a condition stands before the one at `place`: `Neither A nor B is correct`."""
    joined = re.search(rf"{letter}\s*(?:and|or|nor|,|/)\s*$", text[:place])
    return bool(joined or re.search(r"\b(?:neither|if|whether|why|not)\s+(?:option\s+)?$", text[:place], re.IGNORECASE))
