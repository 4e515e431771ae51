"""Completions from a server with OpenAI's completions API, decoded as the run says and not as the server would by itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from fusion.models.generate import Completion, GenerationSettings, cut_at_stop
from fusion.runtime.console import console
from fusion.sources.base import Progress
from fusion.sources.openai_server import Server

NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
"""Sampling settings that are not OpenAI's, off: `repetition_penalty` is vLLM's name, `repeat_penalty` llama.cpp's."""
ENOUGH = 8
"""So many prompts with equal samples are worth a word."""


@dataclass(frozen=True, eq=False)
class OpenAIGenerator:
    """Completions from a server, one request for each, several at a time."""

    server: Server
    concurrency: int
    neutral_fields: bool
    """Whether the server is sent sampling settings that are not OpenAI's."""
    stop_token_ids: Sequence[int]
    """Ids at which answers end; also sent as texts, for servers that do not take ids or do not stop there by themselves."""
    stop: Sequence[str] = ()
    """Texts before which answers end."""

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        completions = []
        self.server.prepare()
        with ThreadPoolExecutor(self.concurrency) as pool:
            for choices in pool.map(partial(self._samples, generation=settings), prompts):
                completions.append(choices)
                if progress is not None:
                    progress(1)
        if settings.temperature and len(completions) >= ENOUGH and all(map(_are_equal, completions)):
            console.print(
                f"  {self.server.model}: {len(completions)} prompts, and the answers to each are equal whatever the seed. Does "
                "the server sample? (transformers serve does so only if the model's generation_config says do_sample)",
                markup=False,
            )
        return completions

    def _samples(self, ids: Sequence[int], generation: GenerationSettings) -> list[Completion]:
        # one request each, with a seed of its own: some servers take no `n`, others take it and write one answer
        seed = generation.seed_for([ids])
        return [self._request(ids, generation, seed + number) for number in range(generation.num_return_sequences)]

    def _request(self, ids: Sequence[int], generation: GenerationSettings, seed: int) -> Completion:
        body = {
            "max_tokens": generation.max_new_tokens, "temperature": generation.temperature, "top_p": generation.top_p,
            "seed": seed % 2**31, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip
        if texts := [*self.stop, *(self.server.tokenizer.decode([id]) for id in self.stop_token_ids)]:
            body["stop"] = texts
        if self.neutral_fields:
            body |= NEUTRAL | {"stop_token_ids": list(self.stop_token_ids)}
        try:
            choice = self.server.post(ids, body)["choices"][0]
        except ValueError as error:
            fields = "Unexpected fields" in str(error) or "extra_forbidden" in str(error)
            hint = " Set backend.sampling_fields to openai, and see that its defaults change nothing." if fields else ""
            raise ValueError(f"{error}{hint}") from error
        if choice.get("text") is None:
            raise self.server.error(
                ValueError("its answer has no text; backend.url should be that of a completions API.")
            )
        return cut_at_stop(Completion(choice["text"], choice.get("finish_reason") == "stop"), self.stop)


def _are_equal(samples: Sequence[Completion]) -> bool:
    return len(samples) > 1 and len(set(samples)) == 1
