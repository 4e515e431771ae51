"""A small run on disk, whose fused model is better than plain fine-tuning by as much as a test asks for."""

import json
from pathlib import Path

import numpy as np

from fusion_eval.results import Result, Sample

DOMAINS = ("dates", "lists", "sums")
SKILL = {"unified": 0.8, "finetune": 0.6, "pivot": 0.2, "smol": 0.5, "tiny-llama": 0.4}


def items(model: str, skill: float, n: int = 40) -> list[Sample]:
    """Items of every model share their texts; `skill` in 0..1 lowers the nats and raises the share of right answers."""
    made = []
    for number, domain in enumerate(DOMAINS):
        rng = np.random.default_rng([number, *model.encode()])
        hard = np.random.default_rng(number).random(n)  # the same examples are hard for all models
        for i in range(n):
            length = 12 + 7 * i % 23
            right = bool(hard[i] + 0.1 * rng.standard_normal() < skill)
            made.append(
                Sample(
                    id=f"{domain}-{i:03}", domain=domain, bytes=length, exact_match=right,
                    nll=length * (0.2 + 0.5 * hard[i] + 0.4 * (1 - skill) + 0.02 * rng.random()),
                    prompt=f"Question {i} of {domain}: what is {i} + {i}?", target=str(2 * i),
                    answer=str(2 * i if right else 2 * i + 1),
                )
            )  # fmt: skip
    return made


def result(model: str, skill: float | None = None, n: int = 40, suite: str = "heldout") -> Result:
    made = {"seed": 0, "versions": {"torch": "2.13.0"}}
    skill = SKILL[model] if skill is None else skill
    return Result(model=model, suite=suite, path=f"runs/a/{model}", provenance=made, samples=items(model, skill, n))


def run_json() -> dict:
    facts = {"hub": True, "parameters": 1_210_000, "vocab_size": 4096, "model_type": "llama", "license": "apache-2.0"}
    return {
        "name": "three-skills",
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2.13.0", "logit-fusion": "0.1.0"},
        "hardware": "2 cores of Some CPU",
        "models": {
            "pivot": {"id": "org/pivot-1m", "role": "pivot", "fingerprint": "4f1c9a02bd77e810", **facts},
            "smol": {"id": "org/smol", "role": "source", "fingerprint": "9a02bd77e8104f1c", **facts},
            "tiny-llama": {"id": "lab/tiny.llama", "role": "source", "fingerprint": "bd77e8104f1c9a02", **facts},
        },
        "stages": [
            {"name": "extract", "seconds": 41.7, "skipped": False},
            {"name": "train", "seconds": 754.2, "skipped": False},
            {"name": "evaluate", "seconds": 0.0, "skipped": True},
        ],
        "helping": [
            {
                "source": source, "domain": domain, "rows": 1200, "match_rate": 0.71 + 0.06 * d, "gold_pivot": -0.52,
                "gold_source": -0.52 + [0.31, 0.004, -0.2][(d + s) % 3], "weight": [0.8, 0.5, 0.1][(d + s) % 3],
            }
            for s, source in enumerate(["smol", "tiny-llama"])
            for d, domain in enumerate(DOMAINS)
        ],
        "plan": [
            {"stage": "extract", "examples": 4500, "tokens": 210_000, "steps": None, "disk": 1,  "flops": 5.1e11},
            {"stage": "train", "examples": 4500, "tokens": 630_000, "steps": 420, "disk": 1,  "flops": 4.6e12},
        ],
        "caches": {
            "pivot": {"rows": 31_000, "bytes": 570_400, "top_k": 1},
            "smol": {"rows": 29_000, "bytes": 1_131_000, "top_k": 10},
            "tiny-llama": {"rows": 40_000, "bytes": 1_560_000, "top_k": 10},
        },
        "data": {
            "train": dict.fromkeys(DOMAINS, 1500), "heldout": dict.fromkeys(DOMAINS, 40),
            "validation": dict.fromkeys(DOMAINS, 8), "hub_datasets": ["org/questions"],
        },
        "result": "unified",
        "baseline": "finetune",
    }  # fmt: skip


def overlay(domain: str = "sums") -> dict:
    """ " ab cd" in the tokens of three models, each position with what was expected there."""

    def lane(*pieces: tuple[int | None, int | None, str, float]) -> list[dict]:
        return [
            {"start": start, "end": end, "text": text, "gold": p, "top": [[text, p], ["x", round((1 - p) / 2, 3)]]}
            for start, end, text, p in pieces
        ]

    return {
        "domain": domain,
        "prompt": f"a question of {domain}",
        "response": " ab cd",
        "positions": {
            "pivot": lane((0, 2, " a", 0.9), (2, 3, "b", 0.5), (3, 6, " cd", 0.2), (6, 6, "</s>", 0.8)),
            "smol": lane((0, 3, " ab", 0.7), (3, 5, " c", 0.6), (5, 6, "d", 1.0), (6, 6, "<end>", 0.1)),
            "tiny-llama": lane((0, 2, " a", 0.4), (2, 6, "b cd", 0.3), (6, 6, "<eos>", 0.2)),
        },
        "pairs": {"smol": [[0, 0], [2, 1], [3, 3]], "tiny-llama": [[0, 0], [1, 1], [3, 2]]},
    }


def log(parts: tuple[str, ...]) -> list[dict]:
    steps = range(10, 210, 10)
    return [
        {"step": step, "loss": 1 + 3 / step**0.3, "learning_rate": 1e-3, "grad_norm": 4 / step**0.5}
        | {"entropy": 2 / step**0.2, "calibration/confidence": 0.6, "calibration/accuracy": 0.5}
        | {f"loss/{part}": (i + 1) * 1.5 / step**0.3 for i, part in enumerate(parts)}
        | {f"weight/{source}": 0.5 - 0.1 * (i - step / 400) for i, source in enumerate(["smol", "tiny-llama"])}
        | {f"match/{source}": 0.7 + 0.1 * i for i, source in enumerate(["smol", "tiny-llama"])}
        for step in steps
    ]


def validation_log(skill: float) -> list[dict]:
    """What a training with this skill at its end says on validation examples, at four steps."""
    numbers = {"bits_per_byte": 0.9, "mean_token_accuracy": 0.3, "calibration_error": 0.12, "entropy": 1.4}
    return [
        {"step": step}
        | {f"eval_{name}": value * (1 - skill * step / 300) for name, value in numbers.items()}
        | {
            f"eval_{name}/{domain}": value * (1 - skill * step / 300) + 0.1 * (d - 1)
            for name, value in numbers.items()
            for d, domain in enumerate(DOMAINS)
        }
        for step in (0, 70, 140, 200)
    ]


def write_run(folder: Path, skills: dict[str, float] = SKILL) -> Path:
    (folder / "train" / "unified").mkdir(parents=True)
    (folder / "train" / "pairwise" / "smol").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run_json()))
    (folder / "config.yaml").write_text("name: three-skills\nobjectives:\n- {kind: forward_kl, weight: 0.5}\n")
    (folder / "train" / "unified" / "log.json").write_text(
        json.dumps(log(("cross_entropy", "forward_kl")) + validation_log(0.8))
    )
    (folder / "train" / "pairwise" / "smol" / "log.json").write_text(
        json.dumps(log(("cross_entropy",)) + validation_log(0.5))
    )
    (folder / "alignment.json").write_text(json.dumps([overlay(domain) for domain in DOMAINS]))
    for model, skill in skills.items():
        result(model, skill).save(folder / "eval" / model / "heldout.json")
    return folder


def change(run: Path, **keys) -> None:
    """Set keys of run.json; None takes a key away."""
    facts = json.loads((run / "run.json").read_text()) | keys
    kept = {key: value for key, value in facts.items() if value is not None}
    (run / "run.json").write_text(json.dumps(kept))
