"""The ratios of docs/performance.md in bfloat16: a fusion step against a plain one, extraction against the bare forward pass.

Two ways in turn, A B B A, after a warm-up of each; the median of their ratios. The clock waits for the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from fusion.data.batching import pad_texts
from fusion.models.head import MAX_LOGITS_PER_CHUNK, Head, hidden_states, run_to_head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.objectives import GLD, AnyObjective, CrossEntropy, ForwardKL, InfiFusion
from fusion.runtime.distributed import free_memory
from fusion.sources import SourceRequest, Transformers
from fusion.training import TrainingCollator, TrainingSource
from fusion.training.fit import training_arguments
from fusion.training.trainer import FusionTrainer
from fusion.weighting import GoldPosterior, Sum
from gpu_checks.check import Check, CheckContext
from gpu_checks.shapes import SHAPES, model_folder
from tests.benchmarks import bodies
from tests.benchmarks.measure import Ratio, paired

SOURCES = {"a": 151_665, "b": 262_144, "c": 128_256}
"""Vocabularies of the cached sources: those of Qwen2.5, Gemma and Llama 3."""
FUSIONS: dict[str, tuple[list[AnyObjective], Any]] = {
    "pair loss": ([CrossEntropy(weight=0.9), InfiFusion(weight=0.1)], Sum()),
    "pair loss and GLD": ([CrossEntropy(weight=0.9), InfiFusion(weight=0.1), GLD(weight=0.1)], Sum()),
    "forward KL, gold posterior": ([CrossEntropy(weight=0.5), ForwardKL(weight=0.5)], GoldPosterior()),
}
STEP_BOUND, EXTRACTION_BOUND = 2.0, 0.5
"""Loose: they find what is broken. The numbers are for reading."""
RUNS = 9
ARGUMENTS = {"bf16": True, "max_steps": 1, "learning_rate": 1e-6, "save_strategy": "no", "report_to": []}


def sizes(context: CheckContext) -> tuple[int, int, int]:
    """Return the examples of a batch, the tokens of each, and how many of them are prompt."""
    return (2, 12, 4) if context.tiny else (8, 512, 128)


def clock() -> float:
    """Return seconds, once the GPU has done all that was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def steps_check(context: CheckContext) -> Iterator[Check]:
    """Steps of both models in mixed precision: collating, forward, backward, clipping and AdamW, in the main process."""
    for name in SHAPES:
        plain = Stepper(context, name, [CrossEntropy()], Sum(), sources=False)
        yield Check(f"{name}: bits of what the output layer computes in mixed precision", plain.bits(), at_most=16)
        ratio = paired(plain.step_on_same_batch, plain.step_on_own_loss, _runs(context), clock=clock)
        yield Check(f"{name}: plain step / step on the loss of transformers", ratio.value, "x", how=_quartiles(ratio))
        for fusion, (objectives, weighting) in FUSIONS.items():
            fused = Stepper(context, name, objectives, weighting)
            yield from _compare_steps(context, f"{name}: step with {fusion}", fused, plain)
            del fused
            free_memory()


def _compare_steps(context: CheckContext, what: str, fused: Stepper, plain: Stepper) -> Iterator[Check]:
    """The second ratio has the batch made beforehand, as data workers do (`dataloader_num_workers`)."""
    bound = context.bound(STEP_BOUND)
    ratio = paired(fused.step, plain.step, _runs(context), clock=clock)
    yield Check(f"{what} / plain step", ratio.value, "x", at_most=bound, how=_quartiles(ratio))
    yield Check(f"{what}, speed", fused.tokens / ratio.a, "tokens/s", how=f"{fused.tokens:,} tokens")
    yield Check(f"{what}, speed of the plain step", plain.tokens / ratio.b, "tokens/s", how=f"{plain.tokens:,} tokens")
    ratio = paired(fused.step_on_same_batch, plain.step_on_same_batch, _runs(context), clock=clock)
    yield Check(f"{what} / plain step, batches ready", ratio.value, "x", at_most=bound, how=_quartiles(ratio))


class Stepper:
    """A model in its trainer, and one training step at a time."""

    def __init__(
        self, context: CheckContext, name: str, objectives: list[AnyObjective], weighting: Any, sources: bool = True
    ):
        count, tokens, prompt = sizes(context)
        ref = ModelRef(str(model_folder(context, name)))
        model, vocabulary = load_model(ref, "float32", context.device), vocabulary_size(load_tokenizer(ref))
        examples, encoded = bodies.texts(count, tokens, prompt, vocabulary)
        taught = (
            _sources(context.folder / "rows" / name, examples, vocabulary, rows_each=tokens - prompt) if sources else []
        )
        self.tokens, self.numbers = count * tokens, range(count)
        self.collator = TrainingCollator(examples, encoded, taught, weighting)
        self.trainer = FusionTrainer(
            model=model,
            head=Head.from_model(model, vocabulary),
            objectives=objectives,
            args=training_arguments(ARGUMENTS | {"per_device_train_batch_size": count}, context.folder / "trainer", 0),
            train_dataset=self.numbers,  # type: ignore[arg-type]
            data_collator=self.collator,  # type: ignore[arg-type]
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.train()  # prepares model and optimizer as in any training, self-checks included
        self.batch = self.collator(self.numbers)

    def bits(self) -> int:
        """Return the bits of a number that the output layer gives in the prepared model."""
        ids = self.batch["input_ids"].to(self.trainer.args.device)
        return torch.finfo(run_to_head(self.trainer.model_wrapped, input_ids=ids).dtype).bits

    def step(self) -> None:
        """Collate the batch and take a step on it."""
        self._step(self.collator(self.numbers))

    def step_on_same_batch(self) -> None:
        """Take a step on a batch that was made beforehand."""
        self._step(dict(self.batch))

    def step_on_own_loss(self) -> None:
        """Take a step on the loss that the model itself computes, from the logits of all positions of the same batch."""
        trainer: Any = self.trainer
        inputs = {name: each.to(trainer.args.device) for name, each in self.batch.items() if name != "targets"}
        trainer.model_wrapped.train()
        trainer.accelerator.backward(trainer.model_wrapped(**inputs, labels=inputs["input_ids"], use_cache=False).loss)
        self._update()

    def _step(self, batch: dict[str, Any]) -> None:
        self.trainer.training_step(self.trainer.model_wrapped, batch)
        self._update()

    def _update(self) -> None:
        trainer: Any = self.trainer
        trainer.accelerator.clip_grad_norm_(trainer.model_wrapped.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()


def extraction_check(context: CheckContext) -> Iterator[Check]:
    """Extraction in bfloat16, K = 10 and moments, against a forward pass with the head on the same rows and no more."""
    count, tokens, _ = sizes(context)
    for name in SHAPES:
        ref = ModelRef(str(model_folder(context, name)))
        tokenizer = load_tokenizer(ref)
        source: Any = Transformers().open(SourceRequest(ref, tokenizer, 10, "bfloat16", context.device))
        vocabulary = vocabulary_size(tokenizer)
        for prompt, title in ((1, "responses only"), (tokens // 2, "half of the tokens are prompt")):
            _, texts = bodies.texts(count, tokens, prompt, vocabulary)
            bare = bare_forward(source.model, texts, MAX_LOGITS_PER_CHUNK // vocabulary)
            ratio = paired(bare, lambda texts=texts, source=source: source.rows(texts), _runs(context), clock=clock)
            what, bound = f"{name}: speed of extraction / bare forward pass, {title}", context.bound(EXTRACTION_BOUND)
            yield Check(what, ratio.value, "x", at_least=bound, how=_quartiles(ratio))
            yield Check(f"{name}: speed of extraction, {title}", count * tokens / ratio.b, "tokens/s")
            yield Check(f"{name}: speed of the bare forward pass, {title}", count * tokens / ratio.a, "tokens/s")
        del source
        free_memory()


def bare_forward(model: Any, texts: Any, chunk: int) -> Callable[[], None]:
    """Return a function that runs the model on texts, and its output layer on the rows that extraction keeps."""
    inputs, hidden_index, _ = pad_texts(texts, model.device)

    @torch.inference_mode()
    def bare() -> None:
        for part in hidden_states(model, **inputs).flatten(0, 1)[hidden_index].split(chunk):
            model.lm_head(part)

    return bare


def _sources(folder: Path, examples: Any, vocabulary: int, *, rows_each: int) -> list[TrainingSource]:
    """Random rows at every position of the pivot; each id stands for the pivot's of the same number, if there is one."""
    found = []
    for name, size in SOURCES.items():
        ids = torch.arange(size)
        rows = bodies.cache(folder / name, examples, rows_each, size)
        found.append(TrainingSource(name, rows, ids.where(ids < vocabulary, -1)))
    return found


def _runs(context: CheckContext) -> int:
    return 3 if context.tiny else RUNS


def _quartiles(ratio: Ratio) -> str:
    return f"quartiles {ratio.low:.3g} to {ratio.high:.3g}; {ratio.a * 1e3:.1f} ms against {ratio.b * 1e3:.1f} ms"
