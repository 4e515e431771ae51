"""The backend `vllm`: rows from vLLM's offline engine, by its prompt log-probabilities."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.data.answer_end import end_of_turn
from fusion.data.encode import Encoded
from fusion.models.generate import Completion, GenerationSettings
from fusion.models.loading import check_checkpoint, vocabulary_size
from fusion.runtime.distributed import world_size
from fusion.sources.base import Backend, Progress, SourceRequest
from fusion.sources.listed import SourceCheck
from fusion.sources.prompt_logprobs import TokenLogprobs, rows_from_logprobs

RESERVED_ARGUMENTS = {"model", "revision", "trust_remote_code", "dtype", "max_logprobs", "logprobs_mode"}
"""Arguments of `vllm.LLM` that the run sets itself."""


class VLLM(Backend):
    """vLLM's offline engine (0.11.1 or newer, installed separately).

    It gives log-probabilities, so the mean and std of the logits are unknown. The probability of padded ids counts as mass
    outside the entries.
    """

    kind: Literal["vllm"] = "vllm"
    has_weights: ClassVar[bool] = True
    can_generate: ClassVar[bool] = True
    runtime_settings: ClassVar[frozenset[str]] = frozenset(
        {"tensor_parallel_size", "gpu_memory_utilization", "max_model_len"}
    )
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share the model."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that vLLM may take."""
    max_model_len: int | None = Field(default=None, gt=0)
    """Longest text in tokens plus one; by default the model's own limit."""
    engine: dict[str, Any] = Field(default={})
    """Any further argument of `vllm.LLM`, such as `quantization` or `max_num_batched_tokens`."""

    @override
    def open(self, request: SourceRequest) -> VLLMSource:
        vllm, engine = self._start(request)
        sampling_params = vllm.SamplingParams(
            temperature=1.0, max_tokens=1, prompt_logprobs=request.k, flat_logprobs=True, detokenize=False
        )  # vLLM generates at least one token; it is discarded
        return VLLMSource(engine, sampling_params, request.k, SourceCheck(vocabulary_size(request.tokenizer)))

    @override
    def open_generator(self, request: SourceRequest) -> VLLMGenerator:
        vllm, engine = self._start(request)
        end = end_of_turn(request.tokenizer, dataclasses.replace(request.prompt_format, stop=()))
        ids = [*request.prompt_format.stop_ids, *([] if end is None else [end])]
        return VLLMGenerator(engine, vllm.SamplingParams, ids, request.prompt_format.stop_texts)

    def _start(self, request: SourceRequest) -> tuple[Any, Any]:
        """Return the module vllm and a running engine.

        Raises ValueError where vLLM is not installed, and in processes of a launcher, because vLLM starts its own.
        """
        if reserved := RESERVED_ARGUMENTS & self.engine.keys():
            raise ValueError(
                f"backend.engine sets {', '.join(sorted(reserved))}, which the run sets itself; remove it there."
            )
        if world_size() > 1:
            raise ValueError(
                f"{request.ref.path}: vLLM starts its own processes and cannot run under torchrun. Run `fusion extract` by "
                "itself, with backend.tensor_parallel_size for several GPUs, or several times at once, each with its own "
                "CUDA_VISIBLE_DEVICES: they share the work."
            )
        try:
            vllm: Any = importlib.import_module("vllm")
        except ImportError as error:
            raise ValueError(
                f"{request.ref.path} has backend kind: vllm, and vllm cannot be imported ({error}). Install it (pip install "
                "vllm), or use kind: transformers."
            ) from error
        if "load_format" not in self.engine:  # else the weights are read in another way than they are checked
            check_checkpoint(request.ref)
        engine = vllm.LLM(
            model=str(request.ref.local_path or request.ref.path),
            revision=request.ref.revision,
            trust_remote_code=request.ref.trust_remote_code,
            dtype=request.dtype,
            max_logprobs=request.k,
            logprobs_mode="raw_logprobs",
            tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
            **({} if self.max_model_len is None else {"max_model_len": self.max_model_len}),
            **self.engine,
        )
        return vllm, engine


@dataclass(frozen=True)
class VLLMGenerator:
    """Completions from a running engine; they end at the model's own eos tokens, at `stop_token_ids` and before `stop`."""

    engine: Any
    sampling_params_class: Any
    stop_token_ids: Sequence[int]
    stop: Sequence[str] = ()

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self.engine.generate(
            inputs, [self._sampling_params(settings, prompt) for prompt in prompts], use_tqdm=False
        )
        if progress is not None:
            progress(len(prompts))
        return [[Completion(one.text, one.finish_reason == "stop") for one in out.outputs] for out in outputs]

    def _sampling_params(self, settings: GenerationSettings, prompt: Sequence[int]) -> Any:
        return self.sampling_params_class(
            n=settings.num_return_sequences, temperature=settings.temperature, top_p=settings.top_p,
            top_k=0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0,  # off, and said so
            max_tokens=settings.max_new_tokens, seed=settings.seed_for([prompt]), stop_token_ids=list(self.stop_token_ids),
            **({"stop": list(self.stop)} if self.stop else {}),
        )  # fmt: skip


@dataclass(frozen=True)
class VLLMSource:
    """Rows from a running engine. vLLM makes its own batches of all the texts of a call."""

    engine: Any
    sampling_params: Any
    k: int
    check: SourceCheck
    """What all rows say together; its size is that of the tokenizer."""

    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`. Raises ValueError where the engine answers for other tokens than it was given."""
        prompts = [{"prompt_token_ids": text.input_ids} for text in texts]
        parts = []
        for number, (text, out) in enumerate(
            zip(texts, self.engine.generate(prompts, self.sampling_params, use_tqdm=False), strict=True)
        ):
            if list(out.prompt_token_ids) != text.input_ids:
                raise ValueError(
                    f"vLLM answered for {len(out.prompt_token_ids)} tokens, not for the {len(text.input_ids)} it was given: "
                    "it must not change the prompt. Is truncation set in backend.engine?"
                )
            logprobs_per_token = list(token_logprobs(out.prompt_logprobs))[text.start :]
            try:
                parts.append(
                    rows_from_logprobs(
                        text, logprobs_per_token, self.k, self.check.vocabulary, number, check=self.check
                    )
                )
            except ValueError as error:
                raise ValueError(f"vLLM's answer for text {number}: {error}") from error
            if progress is not None:
                progress(len(text.input_ids))
        self.check.conclude("vLLM's answers")
        return LogitRows.cat(parts)


def token_logprobs(prompt_logprobs: Any) -> Iterator[TokenLogprobs]:
    """Yield the log-probabilities at each token of a prompt, none at the first, from FlatLogprobs or a list of dictionaries.

    The K most likely tokens, and the prompt's own token where it is not among them.
    """
    if hasattr(prompt_logprobs, "start_indices"):
        ids, values = list(map(int, prompt_logprobs.token_ids)), list(map(float, prompt_logprobs.logprobs))
        for start, end in zip(prompt_logprobs.start_indices, prompt_logprobs.end_indices, strict=True):
            yield dict(zip(ids[start:end], values[start:end], strict=True))
    else:
        for entries in prompt_logprobs:
            yield {id: entry.logprob for id, entry in (entries or {}).items()}
