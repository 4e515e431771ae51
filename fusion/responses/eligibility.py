"""Who may teach a prompt: how many of each source's answers to it passed their check, kept beside the chosen examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fusion.responses.choose import PromptResponses

PASSES = "passes.jsonl"
"""Name of the file: a line for each prompt, with the numbers of answers and of those that passed, by source."""


def passes_to_jsonl(prompts: Sequence[PromptResponses], sources: Sequence[str], samples: int) -> str:
    """Return the text of the file, in order of prompt ids, for `samples` answers of each of `sources` to each prompt.

    An answer that is empty or was left out as truncated is one that did not pass. A prompt that is in the data more than once,
    with other references or tests perhaps, has the answers of all its rows.
    """
    rows = Counter(prompt.example.prompt_id for prompt in prompts)
    passed: Counter[tuple[str, str]] = Counter()
    for prompt in prompts:
        pairs = zip(prompt.responses, prompt.passed, strict=True)
        passed.update((prompt.example.prompt_id, response.source) for response, passes in pairs if passes)
    lines = [
        {
            "prompt": id,
            "answers": dict.fromkeys(sources, rows[id] * samples),
            "passed": {source: passed[id, source] for source in sources},
        }
        for id in sorted(rows)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def read_eligibility(file: Path, sources: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Read, by prompt id, the share of each source's answers that passed, in the order of `sources`; 0 for one that gave none.

    Raises ValueError where the file is not there.
    """
    if not file.exists():
        raise ValueError(
            f"{file} is not there: it says whose answers to which prompt passed. Delete {file.parent}, if it is there, and run "
            "`fusion respond` again; nothing is answered twice."
        )
    lines = [json.loads(line) for line in file.read_text().split("\n") if line]
    return {line["prompt"]: _shares(line["answers"], line["passed"], sources) for line in lines}


def _shares(answers: dict[str, int], passed: dict[str, int], sources: Sequence[str]) -> tuple[float, ...]:
    return tuple(passed[source] / answers[source] if answers.get(source) else 0.0 for source in sources)
