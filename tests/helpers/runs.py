"""A small whole run: three tiny random models of different kinds, sixteen examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusion.config import Config, loading
from fusion.runtime.artifacts import write_text
from tests.helpers import tiny

WORDS = ["the lazy dog", "a quick 🙂 fox", "12 + 30 is 42", "naïve café\t北京", "def double(x):\n    return 2 * x"]


def write_data(folder: Path, name: str, count: int, start: int = 0) -> str:
    rows = [
        {"prompt": f"number {i}: ", "response": f"{WORDS[i % 5]} {i * 7} {WORDS[(i // 2) % 5]}", "domain": i % 2}
        for i in range(start, start + count)
    ]
    write_text(folder / name, "\n".join(json.dumps(row) for row in rows))  # whole, while other processes read it
    return str(folder / name)


def models(folder: Path) -> dict[str, Path]:
    """Folders of a pivot and two sources, made once."""
    kinds = {"pivot": "llama", "neox": "gpt_neox", "qwen": "qwen2"}
    return {
        name: folder / name if (folder / name).exists() else tiny.folder(kind, folder / name, seed)
        for seed, (name, kind) in enumerate(kinds.items())
    }


def raw(folder: Path, **changes: Any) -> dict[str, Any]:
    """A configuration over these models as plain values, `changes` on top."""
    where = models(folder)
    train, held = write_data(folder, "train.jsonl", 16), write_data(folder, "heldout.jsonl", 6, start=100)
    return {
        "name": "small",
        "runs": str(folder / "runs"),
        "pivot": {"path": str(where["pivot"])},
        "sources": [{"name": name, "path": str(where[name])} for name in ("neox", "qwen")],
        "data": {
            "train": [{"path": train, "domain": f"d{i}", "where": {"domain": i}} for i in range(2)],
            "heldout": [{"path": held, "domain": f"d{i}", "where": {"domain": i}} for i in range(2)],
        },
        "extract": {"top_k": 10, "shard_size": 5, "batch_tokens": 256},
        "objectives": [
            {"kind": "cross_entropy", "weight": 0.5},
            {"kind": "infifusion", "weight": 0.1},
            {"kind": "gld", "weight": 0.1},
            {"kind": "forward_kl", "weight": 0.3},
        ],
        "training": {
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": None,
        },
        "evaluation": {"exact_match": ["d0"], "max_new_tokens": 4},
        **changes,
    }


def config(folder: Path, **changes: Any) -> Config:
    """The same, checked."""
    return loading.parse(raw(folder, **changes), "test")
