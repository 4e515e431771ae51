"""The whole chain of a run with one tiny random model: from its folder to a trained copy that plain transformers loads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fusion.data.encode import Encoded, encode
from fusion.data.example import Example
from fusion.models.generate import GenerationSettings
from fusion.models.head import Head, output_layer, without_router_loss
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.objectives import CrossEntropy
from fusion.sources.transformers_source import TransformersGenerator, TransformersSource
from fusion.training import TrainingCollator
from fusion.training.fit import TrainingSpec, train
from fusion.training.packing import check_packed_texts_stay_apart
from fusion.weighting import GoldPosterior
from tests.architectures.reasons import explain
from tests.architectures.tiny_configs import tiny_config
from tests.helpers import tiny

LARGEST_LOGIT = 100.0
"""Size of the largest logits of each model, as of real ones: small logits would hide what their rounding does."""
PRECISIONS = {
    "float32": ("float32", {}), "bfloat16": ("bfloat16", {}), "mixed": ("float32", {"bf16": True}),
}  # fmt: skip
"""The dtype of the weights, and what the trainer is told: `mixed` trains under bfloat16 autocast."""
RESPONSES = ("the lazy dog jumps", "how much is 12 + 30? 42", "a quick fox", "naïve café and tabs")


@dataclass
class ChainResult:
    """What came of one architecture."""

    kind: str
    """The model type, as config.json says it."""
    class_name: str
    outcomes: dict[str, str] = field(default_factory=dict)
    """By precision and for `packing`: `yes`, or why not."""


def run_chain(kind: str, folder: Path, precisions: Sequence[str] = tuple(PRECISIONS), **settings: Any) -> ChainResult:
    """Build a tiny random model of this type in `folder`, with `settings` in its configuration, and run every step with it.

    Nothing is raised: what fails is in the result, in the words of `explain`.
    """
    result = ChainResult(kind, str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]))
    try:
        save_tiny_model(kind, folder / "model", **settings)
    except Exception as error:
        result.outcomes = dict.fromkeys((*precisions, "packing"), explain(error))
        return result
    for precision in precisions:
        result.outcomes[precision] = _outcome(lambda precision=precision: run_in(precision, folder))
    result.outcomes["packing"] = _outcome(lambda: check_packing(folder))
    return result


def _outcome(run: Callable[[], None]) -> str:
    try:
        run()
    except Exception as error:
        return explain(error)
    return "yes"


def save_tiny_model(kind: str, folder: Path, **settings: Any) -> None:
    """Write a random model with logits of about `LARGEST_LOGIT`, and its tokenizer."""
    torch.manual_seed(0)
    tokenizer = tiny.TOKENIZERS["gpt_neox"](tiny.TEXTS)
    config = tiny_config(kind)
    for name, value in settings.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1 and weight.is_floating_point():
                weight += 0.05 * torch.randn_like(weight)
        with contextlib.suppress(Exception):  # what keeps a model from giving logits is found again by the chain
            ids = torch.arange(2, 12)[None]
            largest = model(input_ids=ids, use_cache=False).logits.abs().max()
            output_layer(model).weight *= LARGEST_LOGIT / largest.clamp(min=1e-3)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:  # published with the whole model's configuration
        config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_in(precision: str, folder: Path) -> None:
    """Load, read, generate, train, save and load again in one of `PRECISIONS`; raise at the first thing that goes wrong."""
    dtype, arguments = PRECISIONS[precision]
    ref = ModelRef(str(folder / "model"))
    tokenizer = load_tokenizer(ref)
    model = load_model(ref, dtype)
    head = Head.from_model(model, vocabulary_size(tokenizer))
    head.check_against_model(model)
    texts = encode_texts(tokenizer)
    gold = check_rows(model, head, texts).gold.mean().item()
    check_generation(model, tokenizer, texts)
    log = train_two_steps(ref, tokenizer, texts, folder / precision, dtype, arguments)
    check_loss(log, -gold, precision)
    check_saved(folder / precision / "model", tokenizer)


def encode_texts(tokenizer: Any) -> list[Encoded]:
    """Tokens of a few prompts and responses of different lengths."""
    return [encode(tokenizer, [{"role": "user", "content": f"number {i}: "}], text) for i, text in enumerate(RESPONSES)]


def check_rows(model: Any, head: Head, texts: Sequence[Encoded]) -> Any:
    """Compare extracted rows with the model's own logits of each text alone."""
    rows = TransformersSource(model, head, k=5, batch_tokens=64).rows(texts)
    dense = torch.cat([_own_logits(model, text, head.vocabulary) for text in texts])
    own = dense.log_softmax(-1)
    gold = own.gather(1, rows.token[:, None])[:, 0]
    error = torch.cat([(rows.gold - gold)[:, None], rows.logprobs - own.gather(1, rows.ids)], 1).abs().max().item()
    # another batch is another order of sums: some tens of roundings of the largest logit
    bound = 64 * torch.finfo(model.dtype).eps * dense.abs().max().item() + 1e-4
    if not error <= bound:
        raise AssertionError(f"rows differ from the model's own logits by {error:.3g} nats; {bound:.2g} is rounding")
    return rows


@torch.no_grad()
def _own_logits(model: Any, text: Encoded, vocabulary: int) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([text.input_ids]), use_cache=False).logits[0].float()
    return logits[text.start - 1 : -1, :vocabulary]


def train_two_steps(
    ref: ModelRef, tokenizer: Any, texts: Sequence[Encoded], out: Path, dtype: str, arguments: dict[str, Any]
) -> list[dict[str, float]]:
    """Take two steps of two accumulated batches each with the real trainer; returns its log."""
    examples = [Example((), text, "d") for text in RESPONSES]
    collator = TrainingCollator(examples, texts, [], GoldPosterior())
    given = {
        "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-4,
        "report_to": [], "save_strategy": "no", "lr_scheduler_type": "constant",
    }  # fmt: skip
    train(TrainingSpec(ref, tokenizer, collator, [CrossEntropy()], given | arguments, 0, dtype), out)
    return json.loads((out / "log.json").read_text())


def check_loss(log: Sequence[dict[str, float]], expected: float, precision: str) -> None:
    """Compare the first step's cross-entropy with that of the extracted rows: same model, same texts, other batches."""
    found, bound = log[0]["loss/cross_entropy"], 1e-3 if precision == "float32" else 0.15
    if not abs(found - expected) <= bound * max(1.0, expected):
        raise AssertionError(f"cross-entropy in training is {found:.4g}, of the extracted rows {expected:.4g}")


def check_saved(folder: Path, tokenizer: Any) -> None:
    """Load a trained model with plain transformers: every tensor must be there, and it must generate."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    wrong = {name: sorted(found)[:3] for name, found in info.items() if found}
    if wrong:
        raise AssertionError(f"the saved model does not load whole: {wrong}")
    for name in without_router_loss(model):  # plain transformers cannot compute it while it generates
        setattr(model.config, name, False)
    prompt = torch.tensor([tokenizer("number 7: ")["input_ids"]])
    out = model.eval().generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False)
    assert out.shape[1] > prompt.shape[1]


def check_generation(model: Any, tokenizer: Any, texts: Sequence[Encoded]) -> None:
    """Generate as a source's answers are; the first token must be the likeliest of the model's own logits."""
    generator = TransformersGenerator(model, tokenizer, [tokenizer.eos_token_id], batch_tokens=64)
    prompts = [text.input_ids[: text.start] for text in texts]
    generator.generate(prompts, GenerationSettings(max_new_tokens=3))


def check_packing(folder: Path) -> None:
    """Raise ValueError where packed texts see each other."""
    check_packed_texts_stay_apart(load_model(ModelRef(str(folder / "model"))))


def all_kinds() -> Iterator[str]:
    """Yield every model type that transformers has a causal language model for."""
    yield from MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
