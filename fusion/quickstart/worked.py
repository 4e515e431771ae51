"""Questions with workings: three skills whose answers take 20 to 40 tokens, made by rule, the same on every machine.

    running_sum   "12 + 7 + 3 + 14 = ?"
                  "12 + 7 = 19, 19 + 3 = 22, 22 + 14 = 36. Answer: 36"
    shopping      "3 pens at 14 each and 2 books at 25 each. How much is that?"
                  "3 * 14 = 42, 2 * 25 = 50, 42 + 50 = 92. Answer: 92"
    variables     "a = 14; b = a + 9; c = b * 3. What is c?"
                  "a = 14, b = 14 + 9 = 23, c = 23 * 3 = 69. Answer: 69"

The answer alone ("Answer: 36") is what somebody has who knows results and no workings. For models of hundreds of millions of
parameters; those of the quickstart are too small for them.
"""

from __future__ import annotations

import random
import re
from itertools import accumulate, pairwise

TERMS = 4
THINGS = ("pens", "books", "cups", "lamps", "bags", "hats", "keys", "maps")
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def ask_running_sum(rng: random.Random) -> str:
    """Ask for the sum of four numbers from 2 to 20."""
    return " + ".join(str(rng.randint(2, 20)) for _ in range(TERMS)) + " = ?"


def work_running_sum(prompt: str) -> str:
    """Add one number after the other."""
    numbers = _numbers(prompt)
    sums = list(accumulate(numbers))
    steps = [
        f"{before} + {number} = {after}" for (before, after), number in zip(pairwise(sums), numbers[1:], strict=True)
    ]
    return f"{', '.join(steps)}. {said(sums[-1])}"


def ask_shopping(rng: random.Random) -> str:
    """Ask for the price of some things of two kinds."""
    first, second = (f"{rng.randint(2, 9)} {things} at {rng.randint(3, 30)} each" for things in rng.sample(THINGS, 2))
    return f"{first} and {second}. How much is that?"


def work_shopping(prompt: str) -> str:
    """Multiply each kind apart, and add."""
    many, price, more, other_price = _numbers(prompt)
    first, second = many * price, more * other_price
    steps = f"{many} * {price} = {first}, {more} * {other_price} = {second}, {first} + {second} = {first + second}"
    return f"{steps}. {said(first + second)}"


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


WORKINGS = {"running_sum": work_running_sum, "shopping": work_shopping, "variables": work_variables}
"""What works each skill out."""
