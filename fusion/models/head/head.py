"""Compute `LogitRows` from hidden states: the one place where logits exist, a chunk of rows at a time.

Extraction and training use the same function, so that both sides of a comparison are computed alike: soft-capping and logit
scaling applied, ids beyond the tokenizer left out, log-probabilities over what remains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusion.core.rows import LogitRows, Positions
from fusion.models.head.forward import output_layer
from fusion.models.head.logits import LogitStatistics, summarize_logits
from fusion.models.head.moments import LogitMoments
from fusion.models.head.sampling import sample_ids
from fusion.models.head.self_check import check_against_model
from fusion.models.head.stop_event import events, first_of_event, merge_events

MAX_LOGITS_PER_CHUNK = 2**25  # 128 MiB of float32
LOGITS_BUDGET = 2**28  # logits that a training step keeps for its backward pass: 1 GiB of float32

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What configurations call the soft-cap of the logits: Gemma, RecurrentGemma, xLSTM."""

LOGITS_SCALING_POWER = {"hyperclovax": 1, "minicpm3": 0}
"""Granite divides its logits by `logits_scaling`; these multiply them with it, or have divided the hidden state before."""


@dataclass(frozen=True)
class Head:
    """The output layer of a causal language model, with the scale and soft-capping that its model applies to the logits."""

    module: nn.Module
    """Maps hidden states to logits, bias included. Sharded weights (ZeRO-3, FSDP) must be gathered while it is used."""
    vocabulary: int
    """Number of tokens; ids from here on belong to none (padded heads) and are left out."""
    scale: float = 1.0
    """Factor on the logits (Cohere's logit_scale, the inverse of Granite's logits_scaling)."""
    softcap: float | None = None
    """Logits become softcap * tanh(logits / softcap), as in Gemma 2."""
    chunk: int | None = None
    """Rows per chunk; None takes as many as have `MAX_LOGITS_PER_CHUNK` logits."""
    budget: int = LOGITS_BUDGET
    """Logits kept for the backward pass at most; where there are more, each chunk is recomputed (checkpointing)."""
    autocast: torch.dtype | None = None
    """Type that the layer computes in, in mixed precision, where it is not that of its weights."""
    stop_ids: tuple[int, ...] = ()
    """Ids that say the same, that an answer is over: the first has the probability of all. See `with_stop_ids`."""
    logit_moments: LogitMoments | None = None
    """Mean and std of the logits from the hidden state, for a frozen model; see `for_frozen_model`."""

    @classmethod
    def from_model(cls, model: Any, vocabulary: int, chunk: int | None = None, budget: int = LOGITS_BUDGET) -> Head:
        """Build the head of a loaded model. `vocabulary` is the tokenizer's `vocabulary_size`."""
        module = output_layer(model)
        weight: Any = module.weight
        rows = getattr(weight, "ds_shape", weight.shape)[0]  # DeepSpeed shows shards as empty
        own = (
            getattr(model.config.get_text_config(), "unpadded_vocab_size", None) or rows
        )  # Inkling cuts its logits there
        return cls(module, min(vocabulary, rows, own), *scale_and_softcap(model), chunk, budget)

    def with_stop_ids(self, ids: Sequence[int]) -> Head:
        """Return the head of a model of which each of these ids says that an answer is over: one event, under the first id.

        Rows then hold what they would if the model had this one id for it: a token that is another of them is read as the
        first, and mean and std are over events. Ids beyond the vocabulary are left out.
        """
        return dataclasses.replace(self, stop_ids=tuple(dict.fromkeys(id for id in ids if id < self.vocabulary)))

    def for_frozen_model(self) -> Head:
        """Return the head for a model that is not trained: mean and std come from its weights' Gram matrix, computed here once.

        Unchanged with soft-capping, which is not linear, where the output layer is more than a matrix and a bias, and where
        several ids are one event.
        """
        if self.softcap is not None or type(self.module) is not nn.Linear or len(self.stop_ids) > 1:
            return self
        return dataclasses.replace(
            self, logit_moments=LogitMoments.from_layer(self.module, self.vocabulary, self.scale)
        )

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return the logits in float32 or better, as the model itself would, without padded ids; `stop_ids` are one event."""
        # not a call of the module: sharding hooks would gather its weights for every chunk, and processes have different
        # numbers of chunks
        with torch.autocast(hidden.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.module.forward(hidden)
        return merge_events(self.from_layer(output), self.stop_ids)

    def from_layer(self, output: Float[Tensor, "N W"]) -> Float[Tensor, "N V"]:
        """Return the logits from what the output layer gives; W is the vocabulary with padding."""
        logits = output[:, : self.vocabulary]
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
        """Return the rows of `hidden` with `k` entries, and `query_logprobs`, the log-probabilities of `query_ids`.

        Both are differentiable. `positions` says which rows they are; its `token` must be there. Where an id in `query_ids`
        is negative its value is arbitrary. With `moments=False` mean and std are NaN, which saves two passes over the logits.
        Memory for logits does not grow with N beyond the budget: then chunks are recomputed in the backward pass.
        """
        if positions.token is None:
            raise ValueError("Rows need the token that follows each of them; `positions.token` is None.")
        query_ids = positions.token.new_empty(len(positions), 0) if query_ids is None else query_ids
        with_gradient = torch.is_grad_enabled()
        fits = with_gradient and self.chunk is None and len(positions) * self.vocabulary <= self.budget
        step = max(1, len(positions)) if fits else self.chunk or max(16, MAX_LOGITS_PER_CHUNK // self.vocabulary)
        parts = []
        for i in range(0, max(len(positions), 1), step):
            inputs = (hidden[i : i + step], positions.token[i : i + step], query_ids[i : i + step], k, moments)
            recompute = with_gradient and len(positions) > step
            parts.append(
                checkpoint(self._chunk_statistics, *inputs, use_reentrant=False)
                if recompute
                else self._chunk_statistics(*inputs)
            )
        logprobs, ids, gold, mean, std, query_logprobs = (torch.cat(field) for field in zip(*parts, strict=True))
        return LogitRows.at(positions, logprobs=logprobs, ids=ids, gold=gold, mean=mean, std=std), query_logprobs

    @torch.no_grad()
    def sampled_rows(
        self, hidden: Float[Tensor, "N D"], positions: Positions, uniform: Float[Tensor, "N S"], tau: float
    ) -> LogitRows:
        """Return the rows of `hidden` with S sampled entries, see `sample_ids`; gold and moments as in `rows`. No gradient."""
        assert positions.token is not None
        step = self.chunk or max(16, MAX_LOGITS_PER_CHUNK // self.vocabulary)
        parts = []
        for i in range(0, max(len(positions), 1), step):
            chunk = slice(i, i + step)
            logits, token = self.logits(hidden[chunk]), positions.token[chunk]
            statistics = self._statistics(logits, hidden[chunk], token, token.new_empty(len(token), 0), 0, True)
            parts.append((*sample_ids(logits, uniform[chunk], tau), statistics.gold, statistics.mean, statistics.std))
        logprobs, ids, counts, gold, mean, std = (torch.cat(field) for field in zip(*parts, strict=True))
        return LogitRows.at(positions, logprobs=logprobs, ids=ids, sample_counts=counts, gold=gold, mean=mean, std=std)

    @torch.no_grad()
    def rows_and_entropy(
        self, hidden: Float[Tensor, "N D"], positions: Positions
    ) -> tuple[LogitRows, Float[Tensor, " N"]]:
        """Return the rows of `hidden` with the likeliest token alone, and the entropy (nats) of all tokens at each.

        No gradient. Chunks are a quarter of the others, for entropy takes copies of the logits: what exists at once is no
        more than in `rows`.
        """
        assert positions.token is not None
        step = self.chunk or max(16, MAX_LOGITS_PER_CHUNK // 4 // self.vocabulary)
        parts = []
        for i in range(0, max(len(positions), 1), step):
            logits = self.logits(hidden[i : i + step])
            token = first_of_event(positions.token[i : i + step], self.stop_ids)
            found = summarize_logits(logits, token, token.new_empty(len(token), 0), 1, moments=False)
            entropy = torch.special.entr(logits.log_softmax(-1).exp_()).sum(-1)
            parts.append((found.logprobs, found.ids, found.gold, found.mean, found.std, entropy))
        logprobs, ids, gold, mean, std, entropy = (torch.cat(field) for field in zip(*parts, strict=True))
        return LogitRows.at(positions, logprobs=logprobs, ids=ids, gold=gold, mean=mean, std=std), entropy

    def _chunk_statistics(self, hidden: Tensor, token: Tensor, ask: Tensor, k: int, moments: bool) -> LogitStatistics:
        return self._statistics(self.logits(hidden), hidden, token, ask, k, moments)

    def _statistics(
        self, logits: Tensor, hidden: Tensor, token: Tensor, ask: Tensor, k: int, moments: bool
    ) -> LogitStatistics:
        token, ask = first_of_event(token, self.stop_ids), first_of_event(ask, self.stop_ids)
        several = len(self.stop_ids) > 1
        if not moments or (self.logit_moments is None and not several):
            return summarize_logits(logits, token, ask, k, moments)
        statistics = summarize_logits(logits, token, ask, k, moments=False)
        if several:
            own = events(logits, self.stop_ids)
            mean, std = own.mean(-1), own.std(-1, correction=0)
        else:
            assert self.logit_moments is not None
            mean, std = self.logit_moments(hidden)
        lse = logits.gather(1, token[:, None])[:, 0] - statistics.gold
        return statistics._replace(mean=mean - lse, std=std)

    def check_against_model(self, model: Any) -> None:
        """Raise ValueError where the model's own logits differ by more than rounding explains; see `self_check`."""
        check_against_model(self, model)


def scale_and_softcap(model: Any) -> tuple[float, float | None]:
    """Return the factor on the logits and their soft-cap, as the architecture takes them from its configuration."""
    config = model.config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) * (getattr(config, "lm_head_multiplier", None) or 1.0)
    scaling = getattr(config, "logits_scaling", None) or 1.0
    scale *= scaling ** LOGITS_SCALING_POWER.get(config.model_type, -1)
    caps = (getattr(config, name, None) for name in SOFTCAPS)
    return scale, next(filter(None, caps), None)
