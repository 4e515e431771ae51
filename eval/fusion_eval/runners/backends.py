"""Backends that run a model for lm-eval: transformers, with likelihoods from shared prefixes, or vLLM."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from lm_eval.api.model import LM

from fusion.models.loading import ModelRef, check_checkpoint

BackendName = Literal["transformers", "vllm"]


def load_backend(
    backend: BackendName, ref: ModelRef, *, dtype: str, device: str, batch_tokens: int, batch_size: int
) -> LM:
    """Load a model as lm-eval's `LM`. Raises ValueError where the backend is not installed or cannot read the model."""
    if backend == "transformers":
        from fusion_eval.runners.shared_prefix_lm import SharedPrefixLM

        return SharedPrefixLM(ref, dtype=dtype, device=device, batch_tokens=batch_tokens, batch_size=batch_size)
    if find_spec("vllm") is None:
        raise ValueError("vLLM is not installed. Install it (pip install vllm), or use --backend transformers.")
    if ref.path.endswith(".gguf"):
        raise ValueError(f"{ref.path}: GGUF is read by --backend transformers alone.")
    check_checkpoint(ref)
    from lm_eval.models import vllm_causallms

    model: Any = vllm_causallms.VLLM  # its decorator hides its type from type checkers
    return model(
        ref.path, dtype=dtype, revision=ref.revision, trust_remote_code=ref.trust_remote_code, batch_size="auto"
    )
