"""Which option of a multiple-choice question an answer names: the letter, however it is written, or the option's own text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusion.grading.option_claims import BE, NOUN, claim_at, is_denied, last_claim, letter_pattern
from fusion.grading.statements import extract_boxed, without_invented_question

DENIED = r"\b(?:not|cannot|never|neither|\w+n't|rather than|instead of|other than|except)\b"
REASON = r"(?:,\s*as|,?\s+(?:because|since))\b"


def extract_option(text: str, letters: str = "ABCD", choices: Sequence[str] | None = None) -> str | None:
    """Extract the letter of the option that an answer chooses; None where it chooses none, or more than one.

    `letters` are those of the options, `choices` their texts in the same order, so that an answer may give the text instead.
    A list of all options is no choice; an option is not chosen by being called wrong; of several choices the last one holds.
    """
    choices = [choice.replace("−", "-") for choice in choices or []]
    text = _plain(without_invented_question(text, lambda head: bool(_choice(_plain(head), letters, choices))))
    return _choice(text, letters, choices)


def _choice(text: str, letters: str, choices: Sequence[str] | None) -> str | None:
    if exact := _exactly(text, letters, choices or []):
        return exact
    if claim := last_claim(text, letters):
        return claim.letters[0] if len(set(claim.letters)) == 1 else None
    return (
        _leading(text, letters)
        or _by_text(text, letters, choices or [])
        or _lone_line(text, letters)
        or _only_bracketed(text, letters)
        or _first_sentence(text, choices or [], letters)
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
    text = re.sub(r"\[\[\s*([A-Za-z])\s*\]\]|<([A-Z])>", r"(\1\2)", text)
    text = text.translate(str.maketrans("（）［］：．’−", "()[]:.'-"))
    return re.sub(r"[ \t]+", " ", text).strip()


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


def _is_list(text: str, letters: str) -> bool:
    """Whether a text begins with the first two options, a line each, numbered or not: `1. A. ice`, `2. B. fire`."""
    first, second = (rf"\s*(?:\d+[.)]\s+)?\(?{letter}\s?[).:]" for letter in letters[:2])
    return bool(re.match(rf"{first}[^\n]*\n+{second}", text))


def _listed_in_line(text: str, letters: str) -> bool:
    """Whether the first options are listed in one line, `(A) ice (B) fire (C) stone`, without a word about them."""
    marks = r"[^\n]*".join(rf"(?<!\w)\(?{letter}\s?[).:]\s" for letter in letters[:3])
    return bool(re.match(marks, text)) and not re.search(r"\b(?:because|wrong|false|incorrect|right|correct)\b", text)


def _leading(text: str, letters: str) -> str | None:
    """The letter with which an answer begins: `B`, `(b)`, `B. fire`, `B because`."""
    if _listed(_option_lines(text, letters), letters) or _listed_in_line(text, letters):
        return None
    begin = re.match(rf"(?:option\s+|choice\s+|answer\s+)?(?=({letter_pattern(letters)}))", text, flags=re.IGNORECASE)
    claim = claim_at(text, begin.end(), letters) if begin else None
    if begin is None or claim is None or len(set(claim.letters)) > 1:
        return None
    rest = text[begin.end() + len(begin[1]) :]
    ends = re.match(
        r"\s*(?:$|[.,:;)\]\n!?–—-]|\(|=)|\s+(?:because|since|as|due|for|and not|not|but not|rather|instead)\b", rest
    )
    return claim.letters[0] if ends and not _called_wrong(rest, letters) else None


def _called_wrong(rest: str, letters: str) -> bool:
    """Whether the first sentence after a letter says that it is wrong, and speaks of no other letter."""
    sentence = re.split(r"[.!\n]\s", rest.lstrip(" .):"))[0]
    wrong = re.search(r"\b(?:is|are)\s+(?:not\b|incorrect|false|wrong)", sentence)
    return bool(wrong) and not re.search(rf"(?<!\w)[{letters}](?!\w)", sentence)


def _said(text: str, letters: str) -> list[str]:
    """What a text says that the answer is, in words, to the end of each line; not where it lists all options again."""
    matches = re.finditer(rf"{NOUN}\s*{BE}\s*([^\n]+)", text, flags=re.IGNORECASE)
    stated = [match for match in matches if not is_denied(text, match.start())]
    return [match[1] for match in stated if not _is_list(text[match.start(1) :], letters)]


def _exactly(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The option whose text is the whole answer, such as `Both A and B`; one that is but a letter is none."""
    for place in [text, *_said(text, letters)[-1:]]:
        same = [i for i, choice in enumerate(choices) if len(_words(choice)) > 1 and _words(choice) == _words(place)]
        if len(same) == 1:
            return letters[same[0]]
    return None


def _by_text(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The option whose text is the final answer, or the only one that a short answer or its last line holds."""
    said = _said(text, letters)
    if not said and (
        len(_option_lines(text, letters)) > 1 or _is_list(text, letters)
    ):  # a list of options holds their texts
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    longest_choice = max((len(choice.split()) for choice in choices), default=0)
    places = [place for place in (text, lines[-1] if lines else "") if len(place.split()) <= 20 + longest_choice]
    for place in said[-1:] or places:
        if (exact := [i for i, choice in enumerate(choices) if choice.strip(" .") == place.strip(" .")]) and len(
            exact
        ) == 1:
            return letters[exact[0]]
        place = _affirmed(place, choices)
        held = [i for i, choice in enumerate(choices) if _holds(place, choice)]
        # an option whose text is part of another one's is named only where that other is not
        longest = [i for i in held if not any(i != j and _holds(choices[j], choices[i]) for j in held)]
        if len(longest) == 1:
            return letters[longest[0]]
    return None


def _affirmed(text: str, choices: Sequence[str]) -> str:
    """A text without what it denies and without the reason behind it: `fire` of `fire, not ice` and of `not ice, but fire`.

    Words that stand in the options themselves deny nothing and give no reason.
    """
    for words, end in ((DENIED, r"(?=\bbut\b|[.,;:!?\n]|$)"), (REASON, r"(?=[.;!?\n]|$)")):
        if not any(re.search(words, f", {choice}", flags=re.IGNORECASE) for choice in choices):
            text = re.sub(rf"{words}[^.;:!?\n]*?{end}", " ", text, flags=re.IGNORECASE)
    return text


def _lone_line(text: str, letters: str) -> str | None:
    """The one letter that begins a line as options do, once a list of all of them from the first on is left out."""
    lines = [line.upper() for line in _option_lines(text, letters)]
    if _listed(lines, letters):
        lines = lines[len(letters) :] if lines[: len(letters)] == list(letters) else []
    elif _listed_in_line(text, letters) or re.search(r"\boptions?\b[^\n]*:\s*\n", text, flags=re.IGNORECASE):
        return None  # all are listed or gone through, and it ends before a choice
    only_letters = rf"(?:\d+[.)]\s*)?(?:[{letters}][.):]?\s+)+[{letters}]"  # `A. B. C. D.`
    ends = rf"^(?:[^\n]*[^\W\d]['\")\]]*[.!?])?[ \t]*\(?([{letters}])\)?[.!]?[ \t]*$"
    lone = [match[1] for match in re.finditer(ends, text, flags=re.MULTILINE) if not re.match(only_letters, match[0])]
    distinct = {*lines, *lone}
    return distinct.pop() if len(distinct) == 1 else None


def _only_bracketed(text: str, letters: str) -> str | None:
    """The one letter that stands in brackets or after `option`, where it is not called wrong."""
    named = rf"(?:\(|\b[oO]ption )([{letters}])(?:\)|\b)(?!\s*(?:is|are)\s+(?:not|in|false|wrong))"
    found = {match[1] for match in re.finditer(named, text)}
    return found.pop() if len(found) == 1 else None


def _first_sentence(text: str, choices: Sequence[str], letters: str) -> str | None:
    """The option whose text, of two words or more, ends the first sentence of an explanation: `Speed depends on the source.`"""
    first = _words(re.split(r"[.!?](?:\s|$)|\n", text, maxsplit=1)[0])
    held = [i for i, choice in enumerate(choices) if _holds(first, choice)]
    if len(held) != 1 or re.search(r"\b(?:not|no|never|options?)\b", first):
        return None
    said = _words(choices[held[0]])
    return letters[held[0]] if " " in said and first.endswith(said) else None


def _holds(text: str, choice: str) -> bool:
    return bool(_words(choice)) and f" {_words(choice)} " in f" {_words(text)} "


def _words(text: str) -> str:
    return " ".join(re.findall(r"(?:(?<![\w)])-(?=\d))?[^\W_]+(?:[.,]\d+)?", text.lower()))
