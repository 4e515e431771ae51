"""Who answers the prompts of a run, and who reads the answers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusion.responses import BestSource, EndedCheck, GeneratedResponses

if TYPE_CHECKING:
    from fusion.stages.context import RunContext


@dataclass(frozen=True, eq=False)
class Responding:
    """The models that take part where sources write the responses of a run."""

    context: RunContext

    @property
    def settings(self) -> GeneratedResponses:
        """How sources write responses. Raises TypeError where they do not."""
        how = self.context.config.data.responses
        if not isinstance(how, GeneratedResponses):
            raise TypeError(f"data.responses is {how.kind}: no source writes any")
        return how

    @property
    def sources(self) -> list[str]:
        """Sources that write responses."""
        return self.settings.sources or [source.name for source in self.context.config.sources]

    @property
    def best_answers_unlabelled(self) -> bool:
        """Whether prompts without a reference are answered by one source, the best of their domain."""
        how = self.settings
        return isinstance(how, BestSource) and how.unlabelled == "best"

    @functools.cached_property
    def judged(self) -> list[bool]:
        """Of each training example, whether its check tells right answers from wrong ones.

        Not so where one source answers what has no reference, and all that is asked of its answers is that they end.
        """
        pairs = list(zip(self.context.original_examples, self.context.checks, strict=True))
        if not isinstance(self.context.config.data.responses, GeneratedResponses) or not self.best_answers_unlabelled:
            return [True] * len(pairs)
        return [bool(example.response) or not isinstance(check, EndedCheck) for example, check in pairs]

    @property
    def scoring_sources(self) -> list[str]:
        """Sources that say how likely they find the answers of the others; none where no check asks for it."""
        asked_for = any(data.check.needs_likelihood for data in self.context.config.data.train)
        return [source.name for source in self.context.config.sources] if asked_for else []

    @functools.cached_property
    def scored_references(self) -> dict[str, str]:
        """By prompt id: the data's own responses of which sources say how likely they find them, as checks ask for it."""
        pairs = zip(self.context.original_examples, self.context.checks, strict=True)
        return {example.prompt_id: example.response for example, check in pairs if check.needs_reference_likelihood}

    @property
    def readers(self) -> list[str]:
        """Models that say what they make of answers or references, and the pivot where the choice asks what fits it."""
        how = self.settings
        pivot = isinstance(how, BestSource) and how.prefer != "first"
        read_references = any(data.check.needs_reference_likelihood for data in self.context.config.data.train)
        sources = self.sources if read_references else []
        return [*dict.fromkeys([*self.scoring_sources, *sources]), *(["pivot"] if pivot else [])]
