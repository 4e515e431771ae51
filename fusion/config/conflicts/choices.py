"""What rules about combinations look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusion.objectives import AnyObjective
from fusion.transforms import AnyTransform
from fusion.weighting import AnyWeighting


@dataclass(frozen=True)
class Choices:
    """The settings of a run that rules about combinations look at."""

    objectives: Sequence[AnyObjective]
    weighting: AnyWeighting
    transforms: Mapping[str, Sequence[AnyTransform]]
    """Of each source, by name."""
    top_k: int | str
    """Entries that a cache keeps, or `all`."""
    alignment: str
    strategies: Sequence[str]
    domains: Sequence[str] = ()
    """Of the training examples."""
    sampled: bool = False
    """Whether entries are drawn at random."""
    engine: str = "auto"
    adapter: str | None = None
    weightless: Sequence[str] = ()
    """Names of sources whose weights are not here."""
    later_objectives: Sequence[AnyObjective] = ()
    """Those of rounds, which see the same transforms."""

    def placed(self) -> Iterator[tuple[str, AnyTransform]]:
        """Each transform with the place where it stands in the configuration."""
        for source, (name, each) in enumerate(self.transforms.items()):
            for number, transform in enumerate(each):
                yield f"sources[{source}] ({name}).transforms[{number}] ({transform.kind})", transform
