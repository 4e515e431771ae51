"""Where a text says what its answer is: in a box, after "answer is", or in its last sentence; and where it has ended.

An extraction returns None where the text holds nothing of the kind; that counts as wrong and is never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

CLAIM = r"answer\**(?:\s+(?:is|was|would\s+be|should\s+be|must\s+be|will\s+be)|\s*:)\s*:?\**\s*(?=([^\n]+))"
"""What a claim says goes to the end of its line, in which another may follow."""
NEXT = "question|problem|exercise|example|passage|q|human|user|instruction"
INVENTED = re.compile(rf"\n[ \t]*(?:#+\s*|\*+\s*)?(?:next\s+)?(?:{NEXT})\b\s*\d*\s*\**\s*[:.)]", flags=re.IGNORECASE)
"""Where a model that has answered goes on with a question that nobody asked."""


ANSWER_KEYS = ("answer", "final_answer", "final answer", "choice", "option", "result", "solution")
COURTESY = re.compile(
    r"(?:(?<=[.!?*)])\s+|\n\s*)(?:please\s+)?(?:let me know|feel free|i hope|hope (?:this|that) helps"
    r"|if you (?:have|need|want|would)|would you like|do you (?:want|need|have)|is there anything"
    r"|don't hesitate|shall (?:we|i))\b[^\n]*\s*\Z",
    flags=re.IGNORECASE,
)
"""What a model says to its user once it has answered."""
THOUGHT = r"(?:think(?:ing)?|thoughts?|reasoning|seed:think)"
OPENED = rf"<{THOUGHT}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
CLOSED = rf"</{THOUGHT}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
HARMONY = (
    r"\A.*<\|channel\|>final<\|message\|>|<\|channel\|>(?:analysis|commentary).*"
    r"|\Aanalysis.*assistantfinal|\Aanalysis(?=[A-Z]).*"
)
"""Channels of thought and of the answer, as gpt-oss writes them, also where the marks around their names were left out."""
_ASCII = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {0x066B: ".", 0x066C: ","}


def plain_characters(text: str) -> str:
    """A text with digits of all scripts, and full-width letters and marks, in ASCII: `١٨`, `१८`, `１８` as 18, `Ｃ` as C."""
    text = text.translate(_ASCII)
    return re.sub(r"(?![0-9])\d", lambda digit: str(int(digit[0])), text)


def out_of_json(text: str) -> str:
    """A text whose answer stands in a JSON object, `{"answer": "B"}`, as `Answer: B`; any other as it is."""
    match = re.search(r"{.*}", text, flags=re.DOTALL)
    try:
        found = json.loads(match[0]) if match else None
    except (ValueError, RecursionError):
        return text
    named = {key.lower(): value for key, value in found.items()} if isinstance(found, dict) else {}
    values = [named[key] for key in ANSWER_KEYS if isinstance(named.get(key), str | int | float | list)]
    if not values:
        return text
    return f"Answer: {', '.join(map(str, values[0])) if isinstance(values[0], list) else values[0]}"


def extract_boxed(text: str) -> str | None:
    r"""Extract the contents of the last `\boxed{...}` whose braces are balanced, or of a `\boxed` without them."""
    for start in reversed([match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            if depth == 0:
                return text[start:end].strip()
    bare = re.findall(r"\\boxed\s*(-?\d+(?:\.\d+)?|[A-J])(?![\w{])", text)
    return bare[-1] if bare else None


def extract_final_answer(text: str) -> str | None:
    """Extract what follows the last "answer is" or "Answer:", to the end of its line, without a full stop or bold marks."""
    claims = asserted(re.findall(CLAIM, text, flags=re.IGNORECASE))
    return _bare(claims[-1]) if claims else None


def asserted(claims: Sequence[str]) -> list[str]:
    """What claims say that the answer is; of `not 12 but 10` the second, and of `not 12` nothing."""
    said = [
        re.sub(r"^not\s+(?:[^.\n]|\.\d)*?\bbut\s+(?:rather\s+)?", "", claim, flags=re.IGNORECASE) for claim in claims
    ]
    return [claim for claim in said if not re.match(r"not\b", claim, flags=re.IGNORECASE)]


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

    Thoughts between tags, control tokens written as text and what is said to the user at the end are left out too.
    """
    text = re.sub(r"\n{3,}", "\n\n", out_of_json(plain_characters(without_thoughts(text))))
    while (courtesy := COURTESY.search(text)) and courtesy.start() > 0:
        text = text[: courtesy.start()]
    for match in INVENTED.finditer(text):
        if is_answer(text[: match.start()]):
            return text[: match.start()]
    return text


def without_thoughts(text: str) -> str:
    """A text without its thoughts, in the tags that models put around them, and without control tokens such as `<|im_end|>`.

    A thought that was cut off before its end leaves nothing. Of a text with `<answer>` that is what is left.
    """
    text = re.sub(HARMONY, "", text, count=1, flags=re.DOTALL)
    text = re.sub(rf"(?:{OPENED}).*?(?:{CLOSED})", "", text, flags=re.DOTALL)
    if named := re.findall(r"<answer>(.*?)(?:</answer>|\Z)", text, flags=re.DOTALL):
        text = named[-1]
    text = re.sub(rf"\A.*(?:{CLOSED})", "", text, flags=re.DOTALL)  # of a thought that the prompt began
    text = re.sub(rf"(?:{OPENED}).*", "", text, flags=re.DOTALL)
    return re.sub(r"<\|[a-z_]+\|>|</?s>|<eos>|<end_of_turn>", "", text)


def _bare(text: str) -> str | None:
    """A statement without bold marks, dollars and its full stop; None where nothing is left."""
    bare = text.strip(" *$`").removesuffix(".").strip(" *$`")
    if bare.count("$") % 2:  # of a formula inside it
        bare = bare + "$" if text.rstrip(" *`.").endswith("$") else "$" + bare
    return bare or None
