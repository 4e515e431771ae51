"""Dates of a text in one form: `8 may 1945`."""

from __future__ import annotations

import re

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
MONTH = rf"({'|'.join(f'{month[:3]}(?:{month[3:]}|t)?' if len(month) > 3 else month for month in MONTHS)})\.?"
DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"


def dates_in_one_form(text: str) -> str:
    """Each date of a text in small letters as day, month in letters, year: `8 may 1945`, however it was written."""
    text = re.sub(r"\b(\d{4})-(\d{2})-(\d{2})\b", lambda date: f"{date[3]} {_month(int(date[2]))} {date[1]}", text)
    text = re.sub(
        r"\b(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})\b", lambda date: f"{date[1]} {_month(int(date[2]))} {date[3]}", text
    )
    text = re.sub(rf"\b(\d{{4}}),?\s+{MONTH}\s+{DAY}(?!\d)", r"\3 \2 \1", text)
    text = re.sub(rf"\b{MONTH}\s+{DAY}(?!\d)(?:\s*,?\s*(\d{{4}})\b)?", r"\2 \1 \3", text)
    text = re.sub(
        rf"\b{DAY}\s+(?:of\s+)?{MONTH}(?![a-z])\s*,?\s*", lambda date: f"{int(date[1])} {_name(date[2])} ", text
    )
    return re.sub(rf"\b{MONTH}(?![a-z])\s*,?\s*(?:of\s+)?(?=\d{{4}}\b)", lambda date: f"{_name(date[1])} ", text)


def without_commas_in_dates(text: str) -> str:
    """A text in which no comma stands inside a date: `Tuesday May 8 1945`."""
    day_of_month = rf"{MONTH}(?:\s+{DAY})?|{DAY}\s+(?:of\s+)?{MONTH}"
    text = re.sub(rf"\b({WEEKDAY}),(?=\s+(?:{day_of_month})\b)", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(rf"\b({day_of_month}),(?=\s+\d{{4}}\b)", r"\1", text, flags=re.IGNORECASE)
    return re.sub(rf"\b(\d{{4}}),(?=\s+{MONTH}\s+{DAY}\b)", r"\1", text, flags=re.IGNORECASE)


def _month(number: int) -> str:
    return MONTHS[number - 1] if 0 < number <= len(MONTHS) else str(number)


def _name(short: str) -> str:
    return next(month for month in MONTHS if month.startswith(short[:3]))
