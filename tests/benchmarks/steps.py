"""A fusion step with three cached sources against a plain fine-tuning step, on the same rows with the same head."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fusion.models.head import Head
from fusion.objectives import GLD, AnyObjective, CrossEntropy, ForwardKL, InfiFusion
from fusion.training import TrainingCollator, TrainingSource
from fusion.training.fit import training_arguments
from fusion.training.trainer import FusionTrainer
from fusion.weighting import GoldPosterior, Sum
from tests.benchmarks import bodies
from tests.benchmarks.measure import Figure, Ratio, best, paired

VOCABULARIES = {"qwen": 151_665, "gemma": 262_144, "llama": 128_256}
EXAMPLES, TOKENS, PROMPT = 2, 256, 64

FUSIONS: dict[str, tuple[list[AnyObjective], Any, str]] = {
    "pair loss (InfiFusion)": ([CrossEntropy(weight=0.9), InfiFusion(weight=0.1)], Sum(), "≤ 1.05"),
    "pair loss and GLD (InfiGFusion)": (
        [CrossEntropy(weight=0.9), InfiFusion(weight=0.1), GLD(weight=0.1)], Sum(), "≤ 1.06",
    ),
    "forward KL, gold posterior": ([CrossEntropy(weight=0.5), ForwardKL(weight=0.5)], GoldPosterior(), ""),
}  # fmt: skip


def measure() -> Iterable[Figure]:
    """Collating (reading the caches, aligning, weighting), forward, backward and optimizer, all in the main process."""
    model = bodies.model_135m()
    with tempfile.TemporaryDirectory() as place:
        for name, (objectives, weighting, target) in FUSIONS.items():
            ratio = _ratio(model, Path(place), objectives, weighting, None)
            how = f"{EXAMPLES} x {TOKENS} tokens, {ratio.b:.2f} s a plain step"
            yield Figure(f"step with {name} / plain step", str(ratio), target, how)
        for name, (objectives, weighting, _) in FUSIONS.items():
            more, plain = _beside_the_body(model, Path(place), objectives, weighting)
            how = (
                f"{more * 1e3:.0f} ms more than {plain * 1e3:.0f} ms: caches, alignment, head, terms, all but the body"
            )
            yield Figure(f"what {name} adds to that step", f"{more / ratio.b:+.1%}", "", how)
        yield _reading(Path(place), ratio.b)
        objectives, weighting, target = next(iter(FUSIONS.values()))
        ratio = _ratio(model, Path(place), objectives, weighting, 128)
        yield Figure("the same with pair loss, head in chunks of 128 rows", str(ratio), target, f"{ratio.b:.2f} s")


def _ratio(model: Any, place: Path, objectives: list[AnyObjective], weighting: Any, chunk: int | None) -> Ratio:
    examples, encoded = bodies.texts(EXAMPLES, TOKENS, PROMPT)
    references = [
        TrainingSource(name, bodies.cache(place / name, examples, TOKENS - PROMPT, size), _mapped(size))
        for name, size in VOCABULARIES.items()
    ]
    fused = _step(model, place, TrainingCollator(examples, encoded, references, weighting), objectives, chunk)
    plain = _step(model, place, TrainingCollator(examples, encoded, [], Sum()), [CrossEntropy()], chunk)
    return paired(fused, plain, runs=9)


def _reading(place: Path, step: float) -> Figure:
    examples, _ = bodies.texts(EXAMPLES, TOKENS, PROMPT)
    caches = [bodies.cache(place / name, examples, TOKENS - PROMPT, size) for name, size in VOCABULARIES.items()]
    took = best(lambda: [cache.rows([example.id for example in examples]) for cache in caches])
    return Figure(
        "share of that step that reads and decodes the caches", f"{took / step:.2%}", "≤ 1%", f"{took * 1e3:.1f} ms"
    )


def _beside_the_body(model: Any, place: Path, objectives: list[AnyObjective], weighting: Any) -> tuple[float, float]:
    """Seconds that fusion adds, and that a plain step takes, without the body of the model: what does not differ is noise."""
    examples, encoded = bodies.texts(EXAMPLES, TOKENS, PROMPT)
    references = [
        TrainingSource(name, bodies.cache(place / name, examples, TOKENS - PROMPT, size), _mapped(size))
        for name, size in VOCABULARIES.items()
    ]
    hidden = torch.randn(EXAMPLES, TOKENS, 576)
    ways = (
        (TrainingCollator(examples, encoded, references, weighting), objectives),
        (TrainingCollator(examples, encoded, [], Sum()), None),
    )
    times = []
    for collator, terms in ways:
        trainer = _trainer(model, place, collator, terms or [CrossEntropy()], None)

        def work(trainer=trainer, collator=collator) -> None:
            targets = collator(range(EXAMPLES))["targets"]
            x = hidden.clone().requires_grad_()
            terms = trainer.loss(x, targets, trainer.loss.counts(targets))
            sum(term.weight * term.mean for term in terms).backward()
            model.zero_grad()

        times.append(best(work, runs=9))
    return times[0] - times[1], times[1]


def _mapped(size: int) -> torch.Tensor:
    return torch.arange(size).where(torch.arange(size) < bodies.PIVOT, -1)


def _trainer(
    model: Any, place: Path, collator: TrainingCollator, objectives: list[AnyObjective], chunk: int | None
) -> FusionTrainer:
    given = {"max_steps": 1000, "report_to": [], "logging_steps": 1000, "learning_rate": 1e-6}
    return FusionTrainer(
        model=model,
        head=Head.from_model(model, bodies.PIVOT, chunk),
        objectives=objectives,
        args=training_arguments(given, place / "out", 0),
        train_dataset=range(EXAMPLES),
        data_collator=collator,
    )


def _step(
    model: Any, place: Path, collator: TrainingCollator, objectives: list[AnyObjective], chunk: int | None
) -> Any:
    trainer = _trainer(model, place, collator, objectives, chunk)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        model.train()
        batch = collator(range(EXAMPLES))
        trainer.compute_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
