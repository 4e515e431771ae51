"""Where a text says what its answer is: in a box, after "answer is", or in its last sentence; and where it has ended.

An extraction returns None where the text holds nothing of the kind; that counts as wrong and is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable

CLAIM = r"answer\**(?:\s+(?:is|was|would\s+be|should\s+be|must\s+be|will\s+be)|\s*:)\s*:?\**\s*([^\n]+)"
NEXT = "question|problem|exercise|example|passage|q|human|user|instruction"
INVENTED = re.compile(rf"\n[ \t]*(?:#+\s*|\*+\s*)?(?:next\s+)?(?:{NEXT})\b\s*\d*\s*\**\s*[:.)]", flags=re.IGNORECASE)
"""Where a model that has answered goes on with a question that nobody asked."""


def extract_boxed(text: str) -> str | None:
    r"""Extract the contents of the last `\boxed{...}` whose braces are balanced."""
    for start in reversed([match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            if depth == 0:
                return text[start:end].strip()
    return None


def extract_final_answer(text: str) -> str | None:
    """Extract what follows the last "answer is" or "Answer:", to the end of its line, without a full stop or bold marks."""
    matches = re.findall(CLAIM, text, flags=re.IGNORECASE)
    return _bare(matches[-1]) if matches else None


def last_statement(text: str, words: int = 12) -> str | None:
    """The last sentence of a text that never says "answer", or what stands behind its last `is`, if that is short.

    None where the text was cut off in that sentence, so that no answer is read from the middle of a thought.
    """
    lines = [line.strip(" *#`>") for line in text.splitlines() if line.strip(" *#`>-")]
    if not lines:
        return None
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z$\\])", lines[-1])
    cut_off = len(lines) + len(sentences) > 2 and not re.search(r"[.!?)\]$}\"”]$", lines[-1])
    if cut_off and len(sentences[-1].split()) > 4:
        return None
    said = re.split(r"\b(?:is|are|was|were|equals|be)\b:?\s+", sentences[-1])
    last = sentences[-1] if said[-1].startswith("not") else said[-1]
    return _bare(last) if len(last.split()) <= words else None


def without_invented_question(text: str, is_answer: Callable[[str], bool]) -> str:
    """Cut a text before the first question that the model invented, if what stands before it `is_answer`.

    Thoughts between tags and control tokens written as text are left out too.
    """
    text = re.sub(r"\n{3,}", "\n\n", without_thoughts(text))
    for match in INVENTED.finditer(text):
        if is_answer(text[: match.start()]):
            return text[: match.start()]
    return text


def without_thoughts(text: str) -> str:
    """A text without what stands up to its last `</think>`, and without control tokens such as `<|im_end|>` or `</s>`."""
    return re.sub(
        r"<\|[a-z_]+\|>|</?s>|<eos>|<end_of_turn>", "", re.sub(r".*</think(?:ing)?>", "", text, flags=re.DOTALL)
    )


def _bare(text: str) -> str | None:
    """A statement without bold marks, dollars and its full stop; None where nothing is left."""
    return text.strip(" *$`").removesuffix(".").strip(" *$`") or None
