"""What a run will take, said before anything runs: examples, tokens, steps, disk, memory, arithmetic. No weights are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusion import corpus, models
from fusion.cache.codec import bytes_per_row
from fusion.job import Job
from fusion.train import SIZE, step_size, trainings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
OPTIMIZER = 8  # bytes of AdamW's two moments for each parameter, in float32


@dataclass(frozen=True)
class Estimate:
    """One stage. Sizes in bytes; None where a stage has no such thing."""

    stage: str
    examples: int
    tokens: int
    steps: int | None
    disk: int
    memory: int
    """Peak of weights, gradients, optimizer, activations kept for the backward pass, and one chunk of logits."""
    flops: float
    """2 for each parameter and token forward, 6 in training."""


def plan(job: Job) -> list[Estimate]:
    """An estimate of each stage, in order. Tokenizers and configurations are loaded, data are read and counted."""
    config = job.config
    extracts = [_extract(job, name) for name in job.models]
    names = list(trainings(config.strategies, config.baseline, [source.name for source in config.sources]))
    weights = _parameters(job, "pivot") * BYTES[config.dtype]
    found = [*extracts, *(_train(job, name) for name in names)]
    if "pairwise" in config.strategies:
        found.append(Estimate("merge", 0, 0, None, 2 * weights, 4 * _largest_tensor(job), 0.0))
    found.append(Estimate("fuse", 0, 0, None, weights, 0, 0.0))
    return [*found, *_evaluations(job, names)]


def _extract(job: Job, name: str) -> Estimate:
    config = job.config
    texts = dict(zip(job.ids, job.encoded(name), strict=True)).values()
    tokens = sum(len(text.input_ids) for text in texts)
    vocabulary = models.vocabulary(job.tokenizers[name])
    k = 1 if name == "pivot" else vocabulary if config.extract.top_k == "all" else min(config.extract.top_k, vocabulary)
    disk = sum(text.rows for text in texts) * bytes_per_row(k, config.extract.codec, vocabulary)
    if not job.backend(name).weights:
        return Estimate(f"extract {name}", len(texts), tokens, None, disk, 0, 0.0)
    parameters, width = _parameters(job, name), BYTES[config.extract.dtype]
    memory = parameters * width + _logits(vocabulary) + _activations(job, name, config.extract.batch_tokens, 1) * width
    return Estimate(f"extract {name}", len(texts), tokens, None, disk, memory, 2.0 * parameters * tokens)


def _train(job: Job, name: str) -> Estimate:
    config, parameters = job.config, _parameters(job, "pivot")
    given = job.training
    batch = int(given.get(*SIZE))
    steps_an_epoch = math.ceil(len(job.train) / step_size(given))
    steps = int(given.get("max_steps", -1))
    epochs = float(given.get("num_train_epochs", 3.0)) if steps < 0 else steps / steps_an_epoch
    steps = steps if steps >= 0 else math.ceil(epochs * steps_an_epoch)
    lengths = [len(text.input_ids) for text in job.encoded("pivot")]
    width = BYTES[config.dtype]
    layers = 1 if given.get("gradient_checkpointing") else _layers(job, "pivot")
    kept = _activations(job, "pivot", batch * max(lengths), layers) * width
    memory = parameters * (2 * width + OPTIMIZER) + kept + 2 * _logits(models.vocabulary(job.tokenizers["pivot"]))
    disk = parameters * (2 * width + OPTIMIZER)  # the model, and one checkpoint with the optimizer
    tokens = round(sum(lengths) * epochs)
    return Estimate(f"train {name}", len(job.train), tokens, steps, disk, memory, 6.0 * parameters * tokens)


def _evaluations(job: Job, trained: list[str]) -> list[Estimate]:
    count = len(job.heldout)
    names = {
        **{name: name for name in job.models if job.backend(name).weights},
        **{name: "pivot" for name in trained if not name.startswith("pairwise/")},
    }
    if "pairwise" in job.config.strategies:
        names["pairwise"] = "pivot"
    bytes_each = sum(len(e.response.encode()) + len(e.prompt.encode()) for e in job.heldout) / count
    found = []
    for name, like in names.items():
        parameters, texts = _parameters(job, like), job.encoded(like)
        bytes_a_token = sum(len(e.response.encode()) for e in job.train) / max(1, sum(text.rows for text in texts))
        tokens = round(count * bytes_each / bytes_a_token)
        memory = parameters * BYTES[job.config.extract.dtype] + _logits(models.vocabulary(job.tokenizers[like]))
        found.append(Estimate(f"evaluate {name}", count, tokens, None, 1000 * count, memory, 2.0 * parameters * tokens))
    return found


def _parameters(job: Job, name: str) -> int:
    return models.parameters(job.models[name].ref)


def _layers(job: Job, name: str) -> int:
    return int(models.load_config(job.models[name].ref).get_text_config().num_hidden_layers)


def _activations(job: Job, name: str, tokens: int, layers: int) -> int:
    """Numbers kept for `tokens`: about 34 times the width of a layer (Korthikanti et al. 2022, arXiv:2205.05198, eq. 2)."""
    hidden = models.load_config(job.models[name].ref).get_text_config().hidden_size
    return 17 * tokens * hidden * layers  # 34 bytes at 2 bytes a number


def _logits(vocabulary: int) -> int:
    """Bytes of one chunk of float32 logits and its gradient."""
    from fusion.head import AT_ONCE

    return 2 * 4 * max(AT_ONCE, 16 * vocabulary)


def _largest_tensor(job: Job) -> int:
    config = models.load_config(job.config.pivot.ref).get_text_config()
    return 4 * (len(job.config.sources) + 2) * config.vocab_size * config.hidden_size


def domains(job: Job) -> str:
    """Examples by domain, in words."""
    train = ", ".join(f"{domain} {count}" for domain, count in corpus.by_domain(job.train).items())
    held = ", ".join(f"{domain} {count}" for domain, count in corpus.by_domain(job.heldout).items())
    return f"training: {train}; held out: {held}"
