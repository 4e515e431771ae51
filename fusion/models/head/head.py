"""From hidden states to `LogitRows`: the one place where logits exist, a chunk of rows at a time.

The extractor and the trained pivot use the same function, so that both sides of a comparison are made alike: soft-capping
and logit scaling applied, ids beyond the tokenizer left out, log-probabilities over what remains.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusion.core.rows import LogitRows, Positions
from fusion.models.head.logits import LogitStatistics, summarize_logits
from fusion.models.head.moments import LogitMoments
from fusion.models.head.sampling import sample_ids

MAX_LOGITS_PER_CHUNK = 2**25  # logits of a chunk: 128 MiB of float32
LOGITS_BUDGET = 2**28  # logits that a training step keeps for its backward pass: 1 GiB of float32


@dataclass(frozen=True)
class Head:
    """The output layer of a causal language model, with all that its model does to the logits."""

    module: nn.Module
    """Maps hidden states to logits, bias included. Its weights are whole while it is used; see `train.wrapped.keep_whole`."""
    vocabulary: int
    """Ids from here on belong to no token (padded heads) and take no part."""
    scale: float = 1.0
    """Factor on the logits (Cohere's logit_scale, the inverse of Granite's logits_scaling)."""
    softcap: float | None = None
    """Logits become softcap * tanh(logits / softcap), as in Gemma 2."""
    chunk: int | None = None
    """Rows done at once; None takes as many as make `AT_ONCE` logits."""
    budget: int = LOGITS_BUDGET
    """Where gradients are wanted: so many logits or fewer are kept for the backward pass, of more each chunk is made twice."""
    logit_moments: LogitMoments | None = None
    """Moments of the logits without the logits; see `frozen`."""

    @classmethod
    def from_model(cls, model: Any, vocabulary: int, chunk: int | None = None, budget: int = LOGITS_BUDGET) -> Head:
        """The head of a loaded model. `vocabulary` is the tokenizer's highest id plus one."""
        module, config = model.get_output_embeddings(), model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        softcap = getattr(config, "final_logit_softcapping", None)
        rows = getattr(module.weight, "ds_shape", module.weight.shape)[0]  # DeepSpeed shows shards as empty
        return cls(module, min(vocabulary, rows), scale, softcap, chunk, budget)

    def for_frozen_model(self) -> Head:
        """The same head for a model that is not trained: moments come from its weights' Gram matrix, computed here once.

        Not under soft-capping, which bends the logits, and not where the output layer is more than a matrix and a bias.
        """
        if self.softcap is not None or type(self.module) is not nn.Linear:
            return self
        return dataclasses.replace(self, spread=LogitMoments.from_layer(self.module, self.vocabulary, self.scale))

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Float32 (or better) logits of the tokens that exist, as the model itself would give them."""
        # not a call of the module: sharding hooks would gather its weights for every chunk, and processes have different
        # numbers of chunks
        logits = self.module.forward(hidden)[:, : self.vocabulary]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        logits = logits if self.scale == 1 else logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def rows(
        self,
        hidden: Float[Tensor, "N D"],
        positions: Positions,
        k: int,
        query_ids: Int[Tensor, "N G"] | None = None,
        moments: bool = True,
    ) -> tuple[LogitRows, Float[Tensor, "N G"]]:
        """The rows of `hidden`, differentiable, and the log-probabilities of the ids in `ask` (anything where ask < 0).

        `about` says where the rows stand. With
        `moments=False` mean and std are NaN, which saves two passes over the logits. Memory for logits does not grow with
        N beyond the budget: then chunks are computed again in the backward pass.
        """
        if positions.token is None:
            raise ValueError("Rows need the token that follows each of them; `about.token` is None.")
        query_ids = positions.token.new_empty(len(positions), 0) if query_ids is None else query_ids
        with_gradient = torch.is_grad_enabled()
        fits = with_gradient and self.chunk is None and len(positions) * self.vocabulary <= self.budget
        step = max(1, len(positions)) if fits else self.chunk or max(16, MAX_LOGITS_PER_CHUNK // self.vocabulary)
        parts = []
        for i in range(0, max(len(positions), 1), step):
            inputs = (hidden[i : i + step], positions.token[i : i + step], query_ids[i : i + step], k, moments)
            again = with_gradient and len(positions) > step
            parts.append(
                checkpoint(self._chunk_statistics, *inputs, use_reentrant=False)
                if again
                else self._chunk_statistics(*inputs)
            )
        logprobs, ids, gold, mean, std, asked = (torch.cat(field) for field in zip(*parts, strict=True))
        return LogitRows.at(positions, logprobs=logprobs, ids=ids, gold=gold, mean=mean, std=std), asked

    @torch.no_grad()
    def sampled_rows(
        self, hidden: Float[Tensor, "N D"], positions: Positions, uniform: Float[Tensor, "N S"], tau: float
    ) -> LogitRows:
        """The rows of `hidden` with S entries drawn at random, see `draw`; gold and moments as in `rows`. No gradient."""
        assert positions.token is not None
        step = self.chunk or max(16, MAX_LOGITS_PER_CHUNK // self.vocabulary)
        parts = []
        for i in range(0, max(len(positions), 1), step):
            some = slice(i, i + step)
            logits, token = self.logits(hidden[some]), positions.token[some]
            found = self._statistics(logits, hidden[some], token, token.new_empty(len(token), 0), 0, True)
            parts.append((*sample_ids(logits, uniform[some], tau), found.gold, found.mean, found.std))
        logprobs, ids, counts, gold, mean, std = (torch.cat(field) for field in zip(*parts, strict=True))
        return LogitRows.at(positions, logprobs=logprobs, ids=ids, sample_counts=counts, gold=gold, mean=mean, std=std)

    def _chunk_statistics(self, hidden: Tensor, token: Tensor, ask: Tensor, k: int, moments: bool) -> LogitStatistics:
        return self._statistics(self.logits(hidden), hidden, token, ask, k, moments)

    def _statistics(
        self, logits: Tensor, hidden: Tensor, token: Tensor, ask: Tensor, k: int, moments: bool
    ) -> LogitStatistics:
        if not moments or self.logit_moments is None:
            return summarize_logits(logits, token, ask, k, moments)
        found = summarize_logits(logits, token, ask, k, moments=False)
        mean, std = self.logit_moments(hidden)
        lse = logits.gather(1, token[:, None])[:, 0] - found.gold
        return found._replace(mean=mean - lse, std=std)

    @torch.no_grad()
    def check_against_model(self, model: Any, tolerance: float | None = None) -> None:
        """Compare with the model's own log-probabilities on a few tokens; ValueError where they differ.

        A new architecture may do something to its logits that this class does not know; better to stop than to learn from
        other numbers than the model's. `tolerance` is in nats; by default 1e-3 in float32, 0.1 in 16-bit floats.
        """
        device = next(model.parameters()).device
        ids = (torch.arange(7, device=device) * 37 % self.vocabulary)[None]
        was_training = model.training
        model.eval()
        hidden = hidden_states(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        mine = self.logits(hidden).log_softmax(-1)
        own = model(input_ids=ids).logits[0, :, : self.vocabulary].to(mine.dtype).log_softmax(-1)
        model.train(was_training)
        error = (mine - own).abs().max().item()
        allowed = tolerance or (1e-3 if hidden.dtype in (torch.float32, torch.float64) else 0.1)
        if not error <= allowed:
            inside = unwrap_model(model)
            raise ValueError(
                f"{type(inside).__name__} ({inside.name_or_path}): log-probabilities from its hidden states differ from its "
                f"own by {error:.3g} nats, at most {allowed:g} is allowed. Its head does something besides a linear layer, "
                "a scale (logit_scale, logits_scaling) and soft-capping (final_logit_softcapping); this model cannot be "
                "used until fusion/models/head/head.py knows about it."
            )


def hidden_states(model: Any, **inputs: Tensor) -> Float[Tensor, "B T D"]:
    """What the model's head would read, at every position. `model` may be wrapped for distributed training.

    The call goes through the wrapped model, whose hooks need it; the model's own logits are asked for the last position
    only, where it can do that, and thrown away.
    """
    seen: list[Tensor] = []
    hook = unwrap_model(model).base_model.register_forward_hook(lambda _module, _args, output: seen.append(output[0]))
    try:
        model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        hook.remove()
    return seen[0]


def unwrap_model(model: Any) -> Any:
    """The causal language model inside what distributed training and adapters put around it."""
    while hasattr(model, "module") and not hasattr(model, "base_model"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model
