"""A few questions of each benchmark in the layout of `--data`, written on the spot; and a tiny model with room for them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from fusion_eval.suites.tasks import STOCK
from tests.helpers import tiny

MATH = (
    "Algebra", "Counting & Probability", "Geometry", "Intermediate Algebra", "Number Theory", "Prealgebra", "Precalculus",
)  # fmt: skip
SUBJECTS = sorted(file.stem.removeprefix("mmlu_") for file in (STOCK / "mmlu/default").glob("mmlu_*.yaml"))
BBH = sorted(file.stem for file in (STOCK / "bbh/cot_fewshot").glob("[!_]*.yaml"))


def write(folder: Path, name: str, rows: list[dict]) -> None:
    """Rows of one file, in gzip."""
    file = folder / f"{name}.jsonl.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def benchmarks(folder: Path) -> Path:
    """All benchmarks, with two or three questions a task and one or two a subset."""
    write(folder, "bbh/bbh", [{"task": name, "input": f"Is {name} true?", "target": "yes"} for name in BBH])
    options = {"choices": ["ice", "fire", "stone"], "labels": ["1", "2", "3"], "answerKey": "2"}
    write(
        folder, "arc_challenge/test", [{"id": str(i), "question": f"Which is hot, {i}?", **options} for i in range(3)]
    )
    mmlu = {"choices": ["one", "two", "three", "four"], "answer": "B"}
    for split in ("test", "dev"):
        rows = [{"subject": name, "question": f"{split} of {name}: 1 + 1?", **mmlu} for name in SUBJECTS]
        write(folder, f"mmlu/{split}", rows)
    sums = [
        {"question": f"How much is {i} + {i}?", "answer": f"It is <<{i}+{i}={2 * i}>>.\n#### {2 * i}"} for i in range(8)
    ]
    write(folder, "gsm8k/test", sums[:3])
    write(folder, "gsm8k/train", sums)
    rows = [{"problem": f"Solve {t}.", "level": "1", "type": t, "solution": r"So \boxed{\frac{1}{2}}."} for t in MATH]
    write(folder, "math/test", rows)
    write(folder, "theoremqa/theoremqa", [
        {"id": "a", "question": "Is 2 even?", "answer": True, "answer_type": "bool", "picture": None},
        {"id": "b", "question": "1 + 1?", "answer": 2, "answer_type": "integer", "picture": None},
        {"id": "c", "question": "What is drawn?", "answer": [1, 2], "answer_type": "list of integer", "picture": "c.png"},
    ])  # fmt: skip
    tests = [f"assert double({i}) == {2 * i}" for i in range(3)]
    mbpp = {
        "text": "Double a number.",
        "code": "def double(x):\n    return 2 * x",
        "test_list": tests,
        "test_setup_code": "",
    }
    rows = [{"task_id": i, **mbpp, "challenge_test_list": [], "split": "test"} for i in (11, 12)]
    write(folder, "mbpp/mbpp", [{**rows[0], "task_id": 1, "split": "prompt"}, *rows])
    write(folder, "humaneval/humaneval", [{
        "task_id": "HumanEval/0", "prompt": 'def double(x):\n    """Twice x."""\n', "entry_point": "double",
        "canonical_solution": "    return 2 * x\n", "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    }])  # fmt: skip
    ifeval = {"instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"]}
    kwargs = [{}, {"relation": "less than", "num_words": 500}]
    write(folder, "ifeval/ifeval", [{"key": 1, "prompt": "Write without commas.", **ifeval, "kwargs": kwargs}])
    passage = {"passage": "In 2000 there were 41 trees and 7 ponds.", "question": "How many trees?"}
    write(folder, "drop/dev", [{**passage, "answers": ["41", "forty-one trees"]}])
    rows = [{"ctx": f"Cooking: A man heats oil {i}. He", "endings": ["fries.", "sleeps.", "flies.", "sings."], "label": 0}
            for i in range(3)]  # fmt: skip
    write(folder, "hellaswag/validation", rows)
    write(folder, "wikitext2/valid", [{"text": f" = Trees = \n A tree is a plant , number {i} . \n"} for i in range(2)])
    return folder


def roomy(kind: str, out: Path, seed: int = 0) -> Path:
    """A tiny model whose context holds the longest prompt with its worked examples."""
    folder = tiny.folder(kind, out, seed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16384}))
    return folder
