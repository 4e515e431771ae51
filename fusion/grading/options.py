"""Which option of a multiple-choice question an answer names: the letter, however it is written, or the option's own text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusion.grading.statements import extract_boxed, without_invented_question

NOUN = r"(?:\b(?:answers?|ans|choice|option|selection|letter|response|statement|the\s+(?:correct|right|best)|(?:correct|right|best)\s+one)\b(?:\s+(?:left|remaining|that\s+(?:is|remains|fits|applies)(?:\s+\w+)?))?|答案)"
BE = r"(?:is|are|was|would\s+be|should\s+be|must\s+be|will\s+be|(?:could|may|might|has\s+to|seems\s+to|appears\s+to)\s+be|be|'s|=|:|->|→|⇒|-|–|—|是|为|选)"
FILLER = r"(?:\s|:|,|=|\b(?:clearly|therefore|thus|likely|probably|most|definitely|simply|indeed|either|both|the|an?|letter|option|choice|answer|correct|statement)\b(?=\s+\(?[A-Z]\b))*"
RIGHT = r"(?:(?:the|a|most|an?)\s+)*(?:only\s+|\w*likely\s+|\w+ly\s+)?(?:correct|right|best|true|accurate|appropriate|answer|proper)"
PICK = r"\b(?:choose|chose|pick|picked|select|selected|go\s+with|going\s+with|opt\s+for|settle\s+on|vote\s+for|(?:it|that|this)\s+(?:is|would\s+be|must\s+be|should\s+be)|it's|that\s+leaves(?:\s+us\s+with)?|leaving(?:\s+only)?)"
SO = r"(?:^|[\n.;!,—-]\s*)(?:so|thus|hence|therefore|conclusion|in\s+conclusion|final(?:ly)?|=>|⇒|→|∴)\s*[,:]?\s*"


@dataclass(frozen=True)
class _Claim:
    """A place that says which option is right: several letters where it wavers."""

    start: int
    letters: tuple[str, ...]


def extract_option(text: str, letters: str = "ABCD", choices: Sequence[str] | None = None) -> str | None:
    """Extract the letter of the option that an answer chooses; None where it chooses none, or more than one.

    `letters` are those of the options, `choices` their texts in the same order, so that an answer may give the text instead.
    A list of all options is no choice; an option is not chosen by being called wrong; of several choices the last one holds.
    """
    text = _plain(without_invented_question(text, lambda head: bool(_choice(_plain(head), letters, choices))))
    return _choice(text, letters, choices)


def _choice(text: str, letters: str, choices: Sequence[str] | None) -> str | None:
    if claims := sorted(_claims(text, letters), key=lambda claim: claim.start):
        distinct = set(claims[-1].letters)
        return distinct.pop() if len(distinct) == 1 else None
    return (
        _leading(text, letters)
        or _by_text(text, letters, choices or [])
        or _lone_line(text, letters)
        or _only_bracketed(text, letters)
    )


def _plain(text: str) -> str:
    r"""Text without marks: bold, code, `$`, \text{}, and with a box said as `the answer is`."""
    for command in ("boxed", "fbox"):
        while (box := extract_boxed(text)) is not None and f"\\{command}" in text:
            before = text
            text = re.sub(rf"\\{command}\s*{{\s*{re.escape(box)}\s*}}", lambda _: f" answer: {box} ", text)
            if text == before:
                break
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|textit|operatorname|mathbb)\s*{\s*([^{}]*?)\s*}", r"\1", text)
    text = re.sub(
        r"</?(?:b|strong|answer|i|em|u)>|\*+|__|`+|\$|\\[()\[\]]|^\s*(?:#+|>)\s*",
        "",
        text,
        flags=re.MULTILINE | re.IGNORECASE,
    )
    text = text.translate(str.maketrans("（）［］：．’", "()[]:.'"))
    return re.sub(r"[ \t]+", " ", text).strip()


def _letter(letters: str) -> str:
    """A letter by itself, in brackets or before a bracket or not; an article or a pronoun is no letter."""
    small = letters.lower()
    return (
        rf"(?:[(\[{{\"'“]\s?([{letters}{small}])\s?[)\]}}\"'”]"  # in brackets or quotes, small or not
        rf"|(?<![A-Za-z0-9'])([{letters}])(?![\w'’]|-\w)(?!\s+(?:few|lot|kind|type|small|large|good|single)\b)"
        rf"|(?<![A-Za-z0-9'])([{small}])(?=\s*[).:](?:\s|$)|\s*$|\s*\n))"
    )


def _found(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group).upper()


def _claims(text: str, letters: str) -> Iterator[_Claim]:
    """Yield each place that says which option is right."""
    letter = _letter(letters)
    after = rf"{NOUN}[\"']?\s*(?:\((?!.?\))[^)\n]*\))?(?:\s+(?:here|to\s+(?:this|the)\s+question|for\s+this\s+question|that\s+\w+\s+\w+))?\s*,?\s*{BE}{FILLER}\s*(?:\"|'|“)?"
    for pattern in (
        after,
        rf"{PICK}{FILLER}\s*",
        SO,
        rf"\b(?:correct|right|best)\s+{NOUN}\s*",
        rf"\b(?:not|isn't)\s+{letter}\s*,?\s*(?:but|it\s+is|it's)\s+(?:rather\s+)?",
    ):
        for match in re.finditer(rf"{pattern}(?={letter})", text, flags=re.IGNORECASE | re.MULTILINE):
            if (claim := _claim_at(text, match.end(), letter, letters)) is not None and not _denied(
                text, match.start()
            ):
                yield claim
    for match in re.finditer(
        rf"{letter}(?:[).:]\s[^.;\n]{{0,60}}?)?\s*(?:(?:{BE}|seems|appears|looks)\s+{RIGHT}\b|is[.!]?\s*$)", text
    ):
        if not re.match(r"\s*(?:in|only if)\b", text[match.end() :]) and not _joined_before(
            text, match.start(), letter
        ):
            yield _Claim(match.start(), (_found(match),))


def _claim_at(text: str, place: int, letter: str, letters: str) -> _Claim | None:
    """The letters that stand at `place`: one, or those that `or`, `and` or a comma join to it."""
    first = re.match(letter, text[place:])
    if first is None or _is_article(text, place, first):
        return None
    found, end = [_found(first)], place + first.end()
    joint = rf"(?:\s*[).:])?\s*(?:,|/|,?\s*\b(?:and|or|nor)\b|&)\s*(?:(?:also|maybe|possibly|perhaps|option)\s+)*(?={letter})"
    while (more := re.match(joint, text[end:])) and (next_one := re.match(letter, text[end + more.end() :])):
        if _is_article(text, end + more.end(), next_one):
            break
        found.append(_found(next_one))
        end += more.end() + next_one.end()
    return _Claim(place, tuple(found))


def _is_article(text: str, place: int, match: re.Match[str]) -> bool:
    """Whether an A stands before a word: `The answer is A physicist`, but not `A because`."""
    rest = text[place + match.end() :]
    return match[0] in ("A", "a") and bool(
        re.match(r"\s+(?!because|since|as\b|due|for\b|and\b|or\b|not\b|but\b|rather|instead|is\b|\()[a-z]+", rest)
    )


def _denied(text: str, place: int) -> bool:
    """Whether what stands there is said of wrong options: `incorrect option is`, `not the answer:`."""
    return bool(
        re.search(
            r"\b(?:incorrect|wrong|false|not|isn't|each|every|any|worst|least\s+likely)\s+(?:(?:the|an?|correct|right)\s+)*$",
            text[:place],
            re.IGNORECASE,
        )
    )


def _joined_before(text: str, place: int, letter: str) -> bool:
    """Whether another letter is joined to the one at `place`: `Neither A nor B is correct`."""
    return bool(re.search(rf"{letter}\s*(?:and|or|nor|,|/)\s*$", text[:place])) or bool(
        re.search(r"\b(?:neither|if|whether|why|not)\s+(?:option\s+)?$", text[:place], re.IGNORECASE)
    )


def _option_lines(text: str, letters: str) -> list[str]:
    """Letters with which lines begin as options do, `B. fire`, in order."""
    pattern = rf"^\s*(?:[-•*]\s*)?(?:option\s+)?\(?([{letters}])\s?[).:](?=\s|$)"
    return [
        match[1]
        for match in re.finditer(pattern, text, flags=re.MULTILINE | re.IGNORECASE)
        if match[1].isupper() or match[0].strip()[-1] in ").:"
    ]


def _listed(lines: Sequence[str], letters: str) -> bool:
    """Whether options are listed from the first one on, rather than one chosen."""
    return len(lines) > 1 and [line.upper() for line in lines[:2]] == list(letters[:2])


def _leading(text: str, letters: str) -> str | None:
    """The letter with which an answer begins: `B`, `(b)`, `B. fire`, `B because`."""
    if _listed(_option_lines(text, letters), letters):
        return None
    begin = re.match(rf"(?:option\s+|choice\s+|answer\s+)?(?=({_letter(letters)}))", text, flags=re.IGNORECASE)
    claim = _claim_at(text, begin.end(), _letter(letters), letters) if begin else None
    if begin is None or claim is None or len(set(claim.letters)) > 1:
        return None
    rest = text[begin.end() + len(begin[1]) :]
    ends = re.match(r"\s*(?:$|[.,:;)\]\n!–—-]|\(|=)|\s+(?:because|since|as|due|for|and not|not|but not|rather)\b", rest)
    return claim.letters[0] if ends and not _called_wrong(rest, letters) else None


def _called_wrong(rest: str, letters: str) -> bool:
    """Whether the first sentence after a letter says that it is wrong, and speaks of no other letter."""
    sentence = re.split(r"[.!\n]\s", rest.lstrip(" .):"))[0]
    wrong = re.search(r"\b(?:is|are)\s+(?:not\b|incorrect|false|wrong)", sentence)
    return bool(wrong) and not re.search(rf"(?<!\w)[{letters}](?!\w)", sentence)


def _by_text(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The option whose text is the final answer, or the only one that a short answer or its last line holds."""
    said = re.findall(rf"{NOUN}\s*{BE}\s*([^\n]+)", text, flags=re.IGNORECASE)
    if not said and len(_option_lines(text, letters)) > 1:  # a list of options holds their texts
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    places = [said[-1]] if said else [text, lines[-1] if lines else ""]
    for place in [place for place in places if len(place.split()) <= 20]:
        held = [i for i, choice in enumerate(choices) if _holds(place, choice)]
        # an option whose text is part of another one's is named only where that other is not
        longest = [i for i in held if not any(i != j and _holds(choices[j], choices[i]) for j in held)]
        if len(longest) == 1:
            return letters[longest[0]]
    return None


def _lone_line(text: str, letters: str) -> str | None:
    """The one letter that begins a line as options do, once a list of all of them from the first on is left out."""
    lines = [line.upper() for line in _option_lines(text, letters)]
    if _listed(lines, letters):
        lines = lines[len(letters) :] if lines[: len(letters)] == list(letters) else []
    elif re.search(r"\boptions?\b[^\n]*:\s*\n", text, flags=re.IGNORECASE):  # they are gone through, and it ends before a choice
        return None
    lone = re.findall(rf"^\s*\(?([{letters}])\)?[.!]?\s*$", text, flags=re.MULTILINE)
    distinct = {*lines, *lone}
    return distinct.pop() if len(distinct) == 1 else None


def _only_bracketed(text: str, letters: str) -> str | None:
    """The one letter that stands in brackets or after `option`, where it is not called wrong."""
    named = rf"(?:\(|\b[oO]ption )([{letters}])(?:\)|\b)(?!\s*(?:is|are)\s+(?:not|in|false|wrong))"
    found = {match[1] for match in re.finditer(named, text)}
    return found.pop() if len(found) == 1 else None


def _holds(text: str, choice: str) -> bool:
    return bool(_words(choice)) and f" {_words(choice)} " in f" {_words(text)} "


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+(?:[.,]\d+)?", text.lower()))
