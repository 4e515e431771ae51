"""Questions with workings: three skills whose answers take 20 to 40 tokens, made by rule, the same on every machine.

    running_sum   "12 + 7 + 3 + 5 + 14 = ?"
                  "12 + 7 = 19, 19 + 3 = 22, 22 + 5 = 27, 27 + 14 = 41. Answer: 41"
    product       "347 * 8 = ?"
                  "300 * 8 = 2400, 40 * 8 = 320, 7 * 8 = 56, 2400 + 320 + 56 = 2776. Answer: 2776"
    variables     "a = 14; b = a + 9; c = b * 3. What is c?"
                  "a = 14, b = 14 + 9 = 23, c = 23 * 3 = 69. Answer: 69"

The answer alone ("Answer: 99") is what somebody has who knows results and no workings. For models of hundreds of millions of
parameters; those of the quickstart are too small for them.
"""

from __future__ import annotations

import random
import re
from itertools import accumulate, pairwise

TERMS = 5
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def ask_running_sum(rng: random.Random) -> str:
    """Ask for the sum of five numbers from 2 to 20."""
    return " + ".join(str(rng.randint(2, 20)) for _ in range(TERMS)) + " = ?"


def work_running_sum(prompt: str) -> str:
    """Add one number after the other."""
    numbers = _numbers(prompt)
    sums = list(accumulate(numbers))
    steps = [
        f"{before} + {number} = {after}" for (before, after), number in zip(pairwise(sums), numbers[1:], strict=True)
    ]
    return f"{', '.join(steps)}. {said(sums[-1])}"


def ask_product(rng: random.Random) -> str:
    """Ask for the product of a number of three digits and one of one."""
    return f"{rng.randint(101, 999)} * {rng.randint(3, 9)} = ?"


def work_product(prompt: str) -> str:
    """Multiply hundreds, tens and units apart, and add them."""
    first, second = _numbers(prompt)
    parts = [part for part in (first // 100 * 100, first % 100 // 10 * 10, first % 10) if part]
    steps = [f"{part} * {second} = {part * second}" for part in parts]
    if len(parts) > 1:
        steps.append(f"{' + '.join(str(part * second) for part in parts)} = {first * second}")
    return f"{', '.join(steps)}. {said(first * second)}"


def ask_variables(rng: random.Random) -> str:
    """Ask for the value of the last of three variables, each made of the one before."""
    sign = rng.choice("+-")
    first = rng.randint(20, 60)
    return f"a = {first}; b = a {sign} {rng.randint(2, 19)}; c = b * {rng.randint(2, 9)}. What is c?"


def work_variables(prompt: str) -> str:
    """Put in the value of each variable."""
    steps, value = [], 0
    for name, first, sign, second in re.findall(r"(\w) = (\w+)(?: ([-+*]) (\d+))?", prompt):
        if sign:
            before, value = value, OPERATIONS[sign](value, int(second))
            steps.append(f"{name} = {before} {sign} {second} = {value}")
        else:
            value = int(first)
            steps.append(f"{name} = {value}")
    return f"{', '.join(steps)}. {said(value)}"


def said(result: int) -> str:
    """Return the words in which a result is given."""
    return f"Answer: {result}"


def result_of(workings: str) -> str:
    """Return the last words of workings: the answer alone."""
    return workings[workings.rindex("Answer:") :]


def mistake(answer: str, rng: random.Random) -> str:
    """Return a wrong answer of the same form."""
    return said(int(answer.removeprefix("Answer: ")) + rng.choice((-100, -10, -2, -1, 1, 2, 10, 100)))


def _numbers(prompt: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", prompt)]


WORKINGS = {"running_sum": work_running_sum, "product": work_product, "variables": work_variables}
"""What works each skill out."""
