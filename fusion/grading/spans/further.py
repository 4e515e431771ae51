"""Whether an answer names further things beside the spans that are wanted: `Tom or Ann`, `Tom, Ann, Bob`, `14 to 10`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusion.grading.notation import WORDS
from fusion.grading.spans.dates import MONTHS, without_commas_in_dates
from fusion.grading.spans.words import in_digits, words_of

JOINED = r"(?<!hundred)(?<!thousand)(?<!million),?\s+(?:and|&)\s+"
LISTED = r"\s*;\s*|\s*,(?!\d{3}(?!\d))\s*|(?<!\d)\s*/\s*|\s*/\s*(?!\d)|\s+\d{1,2}[.)]\s+(?=[A-Z])"
NUMBER = r"[$€£]?\d[\d,]*(?:\.\d+)?%?"
COUNT = rf"-?{NUMBER}(?:[\s-](?:yards?|points?|years?|per\s?cent))?|{'|'.join(WORDS)}"
SMALL = ("of", "the", "de", "van", "von", "del", "la")
"""Words that may stand inside a name."""
OPENERS = (
    "according", "actually", "after", "also", "as", "at", "based", "because", "before", "both", "but", "by", "during",
    "finally", "first", "for", "from", "given", "hence", "here", "however", "in", "no", "of", "okay", "on", "overall",
    "since", "so", "then", "therefore", "this", "thus", "to", "well", "when", "while", "with", "yes",
)  # fmt: skip
"""Words with a capital that begin a sentence, and no name."""
LARGER_PLACES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana"
    "|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska"
    "|Nevada|New Hampshire|New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania"
    "|Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin"
    "|Wyoming|[A-Z]{2}|D\\.C\\.|USA?|U\\.S\\.(?:A\\.)?|Australia|Canada|China|England|France|Germany|India|Ireland|Italy|Japan"
    "|Mexico|Poland|Russia|Scotland|Spain|Turkey|Ukraine|Wales"
)
"""What stands behind a place and says where it lies."""
OF_A_NAME = r"Jr\.?|Sr\.?|Inc\.?|Ltd\.?|Co\.?|[IVX]+"


def names_further(answer: str, wanted: Sequence[str]) -> bool:
    """Whether an answer names things that are none of the spans `wanted`, whose words are in one form.

    After `or` that is anything; after `and`, in a list, or at the other end of a range, a name, a number or what has an
    article. A place behind a place (`Denver, Colorado`) is none, nor is what a comma adds in small letters.
    """
    answer = re.sub(r"\([^()]*\)", " ", answer)
    if re.search(r"[\s/]or\s", answer) and not any(" or " in f" {words} " for words in wanted):
        return True
    if len(wanted) == 1 and _is_one_end(answer, wanted):
        return True
    said = without_commas_in_dates(answer.split(":")[-1])
    if _joins_further(said, wanted):
        return True
    return len(wanted) == 1 and _lists_further(said, wanted)


def _joins_further(said: str, wanted: Sequence[str]) -> bool:
    """Whether `and`, or where several are wanted a comma too, joins a name, a number or what has an article to them."""
    items = re.split(rf"{JOINED}|,\s+|{LISTED}" if len(wanted) > 1 else JOINED, said)
    return len(items) > 1 and any(
        re.match(r"[A-Z0-9]|(?:the|an?)\s", item) and not _holds(item, wanted) for item in items
    )


def _lists_further(said: str, wanted: Sequence[str]) -> bool:
    """Whether a list of names, of numbers or of single words holds more than the one that is wanted."""
    items = [item.strip(" .!\"'“”*[]") for item in re.split(rf"{JOINED}|{LISTED}", said)]
    if len(items) < 2:
        return False
    if all(re.match(r"(?:the|an?)\s", item, flags=re.IGNORECASE) for item in items):
        items = [item.split(maxsplit=1)[1] for item in items]
    further = [
        item
        for before, item in zip(["", *items], items, strict=False)
        if not (_holds(item, wanted) or _belongs_to(before, item))
    ]
    single = len(items) > 2 and all(re.fullmatch(r"[a-z][\w-]*", item) for item in items)
    return any(single or _is_of_the_kind(item, wanted[0]) for item in further)


def _is_of_the_kind(item: str, wanted: str) -> bool:
    """Whether an item is what is wanted, a date, a number or a name, by its form."""
    if any(word in MONTHS for word in wanted.split()):
        return bool(re.fullmatch(rf"(?:\d+ )?(?:{'|'.join(MONTHS)})(?: \d+)?", words_of(item)))
    if re.match(r"(?:minus)?\d", wanted):
        return bool(re.fullmatch(COUNT, item, flags=re.IGNORECASE))
    words = item.split()
    return (
        0 < len(words) <= 6
        and words[0][0].isupper()
        and words[0].lower() not in OPENERS
        and all(word[0].isupper() or word[0].isdigit() or word in SMALL for word in words)
    )


def _belongs_to(before: str, item: str) -> bool:
    """Whether an item says more of the one before it: the state that a town lies in, `Jr.`."""
    if re.fullmatch(OF_A_NAME, item):
        return bool(before)
    return bool(before and re.fullmatch(LARGER_PLACES, item) and not re.fullmatch(LARGER_PLACES, before))


def _is_one_end(answer: str, wanted: Sequence[str]) -> bool:
    """Whether a number is wanted that is but one end of `14 to 10`, or the second one of `14-10`."""
    for match in re.finditer(rf"(?<![\w.,/-])({NUMBER})\s*(\bto\b|[-–—])\s*({NUMBER})(?![\w/-])", answer):
        ends = (match[1], match[3]) if match[2] == "to" else (match[3],)
        rest = words_of(f"{answer[: match.start()]} {answer[match.end() :]}")
        if (
            any(words_of(end) == wanted[0].removesuffix(" yard") for end in ends)
            and f" {wanted[0]} " not in f" {rest} "
        ):
            return True
    return False


def _holds(item: str, wanted: Sequence[str]) -> bool:
    """Whether an item holds a wanted span, or is a part of one."""
    said = words_of(item)
    return any(f" {words} " in f" {form} " or form in words for words in wanted for form in (said, in_digits(said)))
