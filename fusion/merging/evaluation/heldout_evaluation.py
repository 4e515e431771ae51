"""The evaluation of one model after another on held-out examples, each result kept under what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusion.data.encode import encode
from fusion.data.example import Example, count_by_domain
from fusion.data.prompt_format import PromptFormat
from fusion.models.context_length import context_length
from fusion.models.loading import ModelRef, load_config, load_tokenizer
from fusion.runtime.artifacts import fingerprint
from fusion_eval.results import Result
from fusion_eval.runners import Progress, heldout


@dataclass(frozen=True)
class HeldoutEvaluation:
    """Held-out examples, and how they are put to a model."""

    examples: Sequence[Example]
    """Each content once."""
    settings: heldout.HeldoutSettings = field(default_factory=heldout.HeldoutSettings)
    prompt_format: PromptFormat = field(default_factory=PromptFormat)
    """How prompts are written; what a model's own chat template leaves open."""
    name: str = "heldout"
    """Name of the suite in results: `heldout`, or `validation` where weights were chosen on these examples."""

    def evaluate(
        self, name: str, identity: str, load: Callable[[], Any], *, out: Path, progress: Callable[[int], Progress]
    ) -> Result:
        """Return the result of a model, from `out` where it was evaluated before, else by reading the examples with it.

        `load` returns a context whose value is the ModelRef; it is called only where the model has to be read. Raises
        ValueError for a model that cannot be loaded, or whose context is shorter than an example.
        """
        key = {"model": identity, "examples": self._digest(), "prompts": self.prompt_format.key()} | self._settings()
        file = out / identity / f"{self.name}-{fingerprint(key)[:8]}.json"
        if file.is_file() and (kept := Result.load(file)).provenance.get("key") == key:
            return kept.model_copy(update={"model": name})
        with load() as ref:
            advance = progress(heldout.count_requests(self.examples, self.settings))
            samples = heldout.score(ref, self.examples, self._formats(), self.settings, progress=advance)
            result = Result(model=name, suite=self.name, path=ref.path, provenance={"key": key}, samples=samples)
        result.save(file)
        return result

    def describe(self, refs: Sequence[ModelRef]) -> str:
        """What each model reads, for people, with the most tokens that one of `refs` needs. Raises what `count_tokens` does."""
        counts = ", ".join(f"{domain} {count:,}" for domain, count in count_by_domain(self.examples).items())
        answers = heldout.count_requests(self.examples, self.settings) - len(self.examples)
        tokens = f", {max(map(self.count_tokens, refs)):,} tokens" if refs else ""
        asked = f", and {answers:,} answers of at most {self.settings.max_new_tokens} tokens" if answers else ""
        return f"{len(self.examples):,} examples ({counts}){tokens}{asked}"

    def count_tokens(self, ref: ModelRef) -> int:
        """The tokens of all examples for one model, by its tokenizer and configuration alone.

        Raises ValueError for an example that is longer than its context.
        """
        tokenizer, longest = load_tokenizer(ref), context_length(load_config(ref))
        total = 0
        for example, form in zip(self.examples, self._formats(), strict=True):
            tokens = len(encode(tokenizer, example.messages, example.response, prompt_format=form).input_ids)
            if longest is not None and tokens > longest.tokens:
                raise ValueError(
                    f"{example.origin or 'evaluation'}: an example of domain {example.domain} has {tokens} tokens, and "
                    f"{ref.path} takes {longest.tokens} ({longest.key}). Leave it out, or shorten the responses with "
                    "response_chars in the recipe's evaluation."
                )
            total += tokens
        return total

    def _formats(self) -> list[PromptFormat]:
        return [format_of(example, self.prompt_format) for example in self.examples]

    def _digest(self) -> str:
        return fingerprint({"examples": [(example.id, example.domain) for example in self.examples]})

    def _settings(self) -> dict[str, Any]:
        # a set of domains has an order of its own in every process
        return self.settings.key() | {"exact_match": sorted(self.settings.exact_match)}


def format_of(example: Example, prompt_format: PromptFormat) -> PromptFormat:
    """Return how a model reads this example, with its tools and as plain text where its data set says so."""
    form = replace(prompt_format, tools=example.tools) if example.tools else prompt_format
    return form.for_prompt(example.messages, example.template)
