"""Adapters: small matrices that are trained while the pivot's own weights stay as they are, and are merged in at the end.

Hu et al. 2021, arXiv:2106.09685 (LoRA); Dettmers et al. 2023, arXiv:2305.14314 (QLoRA); through the library peft.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from transformers import GenerationConfig

from fusion.core.settings import Settings
from fusion.models.export import save_weights
from fusion.models.loading import ModelRef, check_loads_again, empty_model, load_model
from fusion.training.quantization_aware import AnyQuantizer, layers_to_quantize


class LoRA(Settings):
    """W + (lora_alpha / r) B A in place of each targeted W, where only A and B are trained."""

    kind: Literal["lora"] = "lora"
    r: int = Field(default=16, gt=0)
    """Rank: rows of A, columns of B."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """Scale of what is added, divided by r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of A's inputs that are dropped in training."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of linear layers, such as q_proj; all-linear takes every one but the head. A head that is tied to the embedding
    cannot be one."""
    use_rslora: bool = False
    """Divide lora_alpha by the square root of the rank instead (Kalajdzievski 2023, arXiv:2312.03732)."""


class QLoRA(LoRA):
    """LoRA over weights that are kept in 4 bits; needs a GPU and bitsandbytes. Merged into the weights as they were before."""

    kind: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit data type of the frozen weights: normal float or plain float."""
    bnb_4bit_use_double_quant: bool = True
    """Quantize the scales too."""


AnyAdapter = Annotated[LoRA | QLoRA, Field(discriminator="kind")]


def load_pivot(ref: ModelRef, dtype: str, device: str, adapter: LoRA | None) -> Any:
    """The pivot as it is trained: with its adapter, if it has one. Raises ValueError where either cannot be."""
    peft = None if adapter is None else _peft()
    quantization = _quantization(adapter, dtype) if isinstance(adapter, QLoRA) else None
    model = load_model(ref, dtype, device, quantization)
    check_loads_again(model)
    model.generation_config = GenerationConfig()  # some cannot be saved by transformers; see `complete_export`
    if adapter is None or peft is None:
        return model
    config = peft.LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=_targets(model, adapter),
        use_rslora=adapter.use_rslora,
        task_type="CAUSAL_LM",
    )
    model.enable_input_require_grads()  # else nothing before the first adapter has a gradient to recompute for
    return peft.get_peft_model(model, config)


def check_pivot(ref: ModelRef, adapter: LoRA | None, quantizer: AnyQuantizer | None) -> None:
    """Raise ValueError where a trained pivot could not be loaded again, or has no layers that the two name.

    No weights are read.
    """
    model = empty_model(ref)
    check_loads_again(model)
    if adapter is not None:
        _targets(model, adapter)
    if quantizer is not None:
        layers_to_quantize(model, quantizer)


def merge_adapter(ref: ModelRef, dtype: str, adapter: Path, out: Path) -> None:
    """Write the pivot with the adapter in `adapter` merged in, an ordinary model, to `out`; see `complete_export`."""
    model = _peft().PeftModel.from_pretrained(load_model(ref, dtype), str(adapter))
    save_weights(model.merge_and_unload(), out)


def _targets(model: Any, adapter: LoRA) -> str | list[str]:
    if adapter.target_modules == "all-linear":
        return "all-linear"
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if "Linear" in type(module).__name__}
    if unknown := sorted(set(adapter.target_modules) - names):
        raise ValueError(
            f"adapter.target_modules: the pivot has no linear layer {', '.join(unknown)}; it has {', '.join(sorted(names))}."
        )
    _refuse_shared(model, adapter.target_modules)
    return adapter.target_modules


def _refuse_shared(model: Any, targets: list[str]) -> None:
    """Raise ValueError where a targeted layer has its weight in common with a module that is none: both would be changed.

    In training what is added counts for the layer alone, and merged in it would be part of the other module too.
    """
    owners = [
        (name, module.weight)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
    ]
    for name, weight in owners:
        others = [other for other, same in owners if same is weight and other != name]
        if others and name.rsplit(".", 1)[-1] in targets:
            raise ValueError(
                f"adapter.target_modules has {name.rsplit('.', 1)[-1]}, and in the pivot {name} and {', '.join(others)} are "
                "one weight (tie_word_embeddings), so that the merged model would not be the trained one. Leave it out, or "
                f"untie the pivot first: save it with tie_word_embeddings: false and a {name} of its own."
            )


def _quantization(adapter: QLoRA, dtype: str) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise ValueError("adapter.kind is qlora, which needs a GPU, and there is none; use lora.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("adapter.kind is qlora, which needs bitsandbytes: pip install bitsandbytes, or use lora.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=adapter.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError(
            "An adapter needs peft: pip install 'logit-fusion[adapters]', or leave adapter out."
        ) from error
    return peft
