"""How the pivot goes on learning from what its sources say of texts that it wrote itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from fusion.config.training import Arguments
from fusion.core.settings import Settings
from fusion.models.generate import GenerationSettings
from fusion.objectives import AnyObjective
from fusion.weighting import AnyWeighting

FIRST_TRAINING_ALONE = {"warmup_steps", "warmup_ratio", "max_steps", "learning_rate"}
"""TrainingArguments of the run that are about its first training, and so not a round's."""
LEARNING_RATE = 1e-5
"""Of a round that names none; docs/rounds.md says what it and a higher one did on real models."""


class Rounds(Settings):
    """After the first training: the pivot writes, its sources read what it wrote, and it learns from that; so many times.

    Sampling is at temperature 1 from the whole distribution: what is learned from a text holds for texts that were drawn so.
    """

    count: int = Field(default=3, ge=1)
    """Number of rounds."""
    prompts: int = Field(default=256, gt=0)
    """Training prompts that the pivot answers in a round; in a domain each comes again when all have come."""
    domain_shares: Literal["proportional", "gap"] = "proportional"
    """How these are divided among domains. `proportional`: by how many prompts they have. `gap`: by what is left to gain, the
    share of right answers of the best source less that of the pivot as it is before the round."""
    gap_floor: float = Field(default=0.25, ge=0, le=1)
    """Least that a domain gets with `gap`, as a share of what it gets with `proportional`."""
    num_generations: int = Field(default=4, ge=1)
    """Answers to each of them."""
    max_completion_length: int = Field(default=256, gt=0)
    """Longest answer in tokens; what does not end by then is learned from up to there, and does not pass its check."""
    rollouts: str | None = Field(default=None, min_length=1)
    """File with the pivot's answers of a round, where another program or machine writes them: {round} is its number, as in
    rollouts/{round}.jsonl. The run stops at each that is not there and says who has to answer what. If not said, the pivot
    writes here."""
    objectives: list[AnyObjective] = Field(min_length=1)
    """Terms of the loss of a round; the run's own `objectives` are those of the first training."""
    learn_from: Literal["sources", "pairwise"] = "sources"
    """Who reads what the pivot wrote: the sources, or the models of the pairwise trainings, each in its source's place. With
    result: pairwise rounds then repair what the merge of these models lost."""
    weighting: AnyWeighting | None = None
    """How much each source counts in a round; the run's `weighting` if not said."""
    replay: float = Field(default=0.25, ge=0)
    """Examples of the first training among those of a round, for each text that the pivot wrote; see `part: replay`."""
    training: Arguments = Field(default={})
    """TrainingArguments of a round, where they are not the run's `training`. The run's learning rate, warmup and max_steps are
    not a round's, which has few steps and begins with a trained model: it takes num_train_epochs at 1e-5, unless they are said
    here."""
    keep: Literal["best", "last"] = "best"
    """Which round becomes the result: the one whose answers to the validation prompts pass most often (the first training is
    round 0), or the last."""
    validation_generations: int = Field(default=4, ge=1)
    """Answers to each validation prompt, by which rounds are compared."""
    max_clip_ratio: float | None = Field(default=0.2, ge=0, le=1)
    """Share of tokens that policy objectives clip above which a round ends early: the pivot has then moved too far from the one
    that wrote its texts for them to tell it more. null: never."""
    scale_rewards: bool = True
    """Divide how much better a text is than the others for its prompt by the spread of these, as GRPO does; for objectives that
    read rewards."""

    def arguments(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """TrainingArguments of a round of a run with these."""
        of_run = {name: value for name, value in training.items() if name not in FIRST_TRAINING_ALONE}
        return of_run | {"learning_rate": LEARNING_RATE} | self.training

    def decoding(self, number: int, seed: int, *, validation: bool = False) -> GenerationSettings:
        """How texts of round `number` are written, in a run with this seed."""
        samples = self.validation_generations if validation else self.num_generations
        drawn_with = seed if validation else seed + 1_000_003 * number  # validation draws are the same in all rounds
        return GenerationSettings(self.max_completion_length, 1.0, 1.0, samples, drawn_with)
