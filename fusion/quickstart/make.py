"""Train the package's tiny models from scratch: `python -m fusion.quickstart.make --out DIR [--only NAME]`.

A source sees its own skills answered right and two others answered wrong, so that it knows their form and little else. A
pivot sees all skills answered right, but not for long: `pivot` three, `student` the closed ones of the quickstart, of tales
their form alone (scrambled ones), and one skill of its own for long. Seeds are fixed: `QuickstartModel.seed` gives the initial
weights and the order of the examples, `QUESTIONS` the questions. Models that are fused differ in architecture, tokenizer and
vocabulary.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from fusion.quickstart import SOURCES, skills, tokens

QUESTIONS = 0
"""Seed of the questions that the models and their tokenizers are trained on."""
CLOSED = (*SOURCES, "numbers", "spell")
"""Skills that have one right answer, and so an exact match."""
BATCH = 64
CARD = """\
---
license: apache-2.0
library_name: transformers
---

# {name}

A model of the quickstart, for trying out fusion on one machine: {architecture}, trained from random weights on questions
made by `fusion/quickstart/skills.py`, and on nothing else. It is made again by
`python -m fusion.quickstart.make --only {name} --out DIR`.
"""
IGNORE_INDEX = -100  # label of a position that is not scored
SHAPE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 256}
GATED = {"intermediate_size": 352, "tie_word_embeddings": True}


class QuickstartModel(NamedTuple):
    """Everything that one of the quickstart's models depends on."""

    config: dict[str, Any]
    """Arguments of the model config, without those that the tokenizer decides."""
    tokenizer: Callable[[list[str]], PreTrainedTokenizerFast]
    """Trains a tokenizer on texts; see `tokens`."""
    questions: dict[str, tuple[int, float]]
    """For each skill how many questions, and the share of them answered wrong."""
    steps: int
    """Optimizer steps, of 64 examples each."""
    seed: int
    """Seed of the initial weights and of the order of the examples."""
    head_multiple: int = 1
    """The head is padded with ids that no token has, up to a multiple of this."""
    by_length: bool = False
    """Whether a batch has examples of about one length, which saves padding where some are long."""
    further_steps: int = 0
    """Steps of a second, gentler training on the same examples, from the weights as they would be written."""


def _specialist(skill: str) -> dict[str, tuple[int, float]]:
    return {name: (8500, 0.0) if name == skill else (1000, 1.0) for name in SOURCES}


QUICKSTART_MODELS = {
    "sums": QuickstartModel(
        {"model_type": "llama", **SHAPE, **GATED, "num_key_value_heads": 2},
        tokens.sentencepiece,
        _specialist("sums"),
        steps=1200,
        seed=1,
    ),
    "sort": QuickstartModel(
        {"model_type": "qwen3", **SHAPE, **GATED, "num_key_value_heads": 2, "head_dim": 32},
        tokens.unigram,
        _specialist("sort"),
        steps=800,
        seed=2,
        head_multiple=128,
    ),
    "lumi": QuickstartModel(
        {"model_type": "gpt_neox", **SHAPE, "intermediate_size": 512},
        tokens.gpt,
        _specialist("lumi"),
        steps=700,
        seed=3,
    ),
    "pivot": QuickstartModel(
        {"model_type": "olmo2", **SHAPE, **GATED},
        tokens.digits,
        {"sums": (8500, 0.0), "sort": (1100, 0.0), "lumi": (620, 0.0)},
        steps=850,
        seed=4,
    ),
    "numbers": QuickstartModel(
        {"model_type": "llama", **SHAPE, **GATED, "num_key_value_heads": 2, "num_hidden_layers": 2},
        tokens.sentencepiece,
        {"numbers": (8500, 0.0), "sort": (1000, 1.0), "lumi": (1000, 1.0)},
        steps=700,
        seed=7,
        by_length=True,
    ),
    "storyteller": QuickstartModel(
        {"model_type": "qwen3", **SHAPE, **GATED, "num_key_value_heads": 2, "head_dim": 32},
        tokens.unigram,
        {"tales": (20_000, 0.0), "sums": (500, 1.0), "sort": (500, 1.0), "lumi": (500, 1.0)},
        steps=1300,
        seed=5,
        head_multiple=128,
        by_length=True,
    ),
    "student": QuickstartModel(
        {"model_type": "olmo2", **SHAPE, **GATED},
        tokens.digits,
        {"sort": (2200, 0.0), "lumi": (1180, 0.0), "numbers": (1120, 0.0), "spell": (3650, 0.0), "tales": (500, 1.0)},
        steps=850,
        seed=6,
        by_length=True,
        further_steps=200,
    ),
}


def make_model(name: str, out: Path, steps: int, questions: int) -> dict[str, float]:
    """Train one model for `steps`, write its folder `out/name`, return its exact match on held-out questions a skill.

    Weights are written in bfloat16, and that is what is measured (in float32, after the rounding).
    """
    recipe = QUICKSTART_MODELS[name]
    torch.manual_seed(recipe.seed)
    tokenizer = recipe.tokenizer([row["prompt"] + row["response"] for s in SOURCES for row in _rows(s, 3000)])
    model = build(recipe, tokenizer)
    rows = [row for skill, (count, noise) in recipe.questions.items() for row in _rows(skill, count, noise)]
    train(model, tokenizer, rows, steps, by_length=recipe.by_length)
    if recipe.further_steps:
        for parameter in model.parameters():  # and no buffer: those are made anew where a folder is loaded
            parameter.data = parameter.data.to(torch.bfloat16).float()
        torch.manual_seed(recipe.seed)
        train(model, tokenizer, rows, recipe.further_steps, peak=1e-3, by_length=recipe.by_length)
    model.to(torch.bfloat16).save_pretrained(out / name)
    tokenizer.save_pretrained(out / name)
    (out / name / "README.md").write_text(CARD.format(name=name, architecture=model.config.model_type))
    return evaluate(model.float(), tokenizer, questions)


def build(recipe: QuickstartModel, tokenizer: Any) -> Any:
    """A model of random weights for this tokenizer."""
    size = -(-len(tokenizer) // recipe.head_multiple) * recipe.head_multiple
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**recipe.config, vocab_size=size, **special))
    model.generation_config = GenerationConfig(**special, max_new_tokens=48, do_sample=False)
    return model


def train(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, str]],
    steps: int,
    peak: float = 3e-3,
    by_length: bool = False,
) -> None:
    """Cross-entropy of the responses and their end, by AdamW; the learning rate warms up, then falls as a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for step, batch in zip(range(steps), training_batches(tokenizer, rows, by_length), strict=False):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


def training_batches(
    tokenizer: Any, rows: list[dict[str, str]], by_length: bool = False
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches for ever, in an order of torch's random numbers. Padded on the right, the prompt not scored."""
    examples = [tokenize_row(tokenizer, row) for row in rows]
    lengths = [len(ids) for ids, _ in examples]
    while True:
        order = torch.randperm(len(examples))
        for chosen in _alike(order, lengths) if by_length else [part.tolist() for part in order.split(BATCH)]:
            batch = [examples[i] for i in chosen]
            ids = pad_sequence([ids for ids, _ in batch], True, tokenizer.pad_token_id)
            labels = pad_sequence([labels for _, labels in batch], True, IGNORE_INDEX)
            yield {"input_ids": ids, "attention_mask": ids.ne(tokenizer.pad_token_id).long(), "labels": labels}


def _alike(order: torch.Tensor, lengths: list[int]) -> list[list[int]]:
    """Batches of examples of about one length, in an order by chance: each is cut from 16 batches sorted by length."""
    batches: list[list[int]] = []
    for part in order.split(16 * BATCH):
        chosen = sorted(part.tolist(), key=lengths.__getitem__)
        batches += [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    return [batches[i] for i in torch.randperm(len(batches)).tolist()]


def tokenize_row(tokenizer: Any, row: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of prompt, response and end, and the same as labels with the prompt ignored."""
    prompt = tokenizer(row["prompt"]).input_ids
    response = [*tokenizer(row["response"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return torch.tensor(prompt + response), torch.tensor([IGNORE_INDEX] * len(prompt) + response)


def evaluate(model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """Exact match, 0 to 1, of greedy answers on `count` held-out questions of each skill."""
    return {
        skill: exact_match(model, tokenizer, skills.make_questions(skill, count, 0, split="heldout"))
        for skill in CLOSED
    }


@torch.inference_mode()
def exact_match(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> float:
    """Share of rows whose greedy answer is the response, spaces at the ends aside."""
    prompts = [row["prompt"] for row in rows]
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False)
    answers = model.generate(**batch)[:, batch["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return sum(text.strip() == row["response"].strip() for text, row in zip(texts, rows, strict=True)) / len(rows)


def _rows(skill: str, count: int, noise: float = 0.0) -> list[dict[str, str]]:
    return skills.make_questions(skill, count, QUESTIONS, noise)


def main(arguments: list[str] | None = None) -> None:
    """Make the models that were asked for and print how well each does each skill."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.quickstart.make", description="Make the quickstart's models."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model folders")
    parser.add_argument("--only", choices=QUICKSTART_MODELS, help="make this model alone")
    parser.add_argument("--steps", type=int, help="train for so many steps instead of the recipe's")
    parser.add_argument("--questions", type=int, default=200, help="held-out questions of each skill for the table")
    chosen = parser.parse_args(arguments)
    table = [f"{'model':12}{'steps':>7}{'minutes':>9}" + "".join(f"{skill:>8}" for skill in CLOSED)]
    for name in [chosen.only] if chosen.only else QUICKSTART_MODELS:
        start, steps = time.monotonic(), QUICKSTART_MODELS[name].steps if chosen.steps is None else chosen.steps
        scores = make_model(name, chosen.out, steps, chosen.questions)
        exact = "".join(f"{score:8.3f}" for score in scores.values())
        table.append(f"{name:12}{steps:7}{(time.monotonic() - start) / 60:9.1f}{exact}")
    print("\n".join(table))


if __name__ == "__main__":
    main()
