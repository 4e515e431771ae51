"""What is known of an example besides its rows."""

from typing import Literal, NamedTuple

Part = Literal["rollouts", "replay", "chosen", "rejected"]
"""What an example of a round is: a text that the pivot wrote, or one of those that it learned from before. Of preferences: a
right or a wrong answer."""


class ExampleInfo(NamedTuple):
    """The domain and the content id of an example, and in rounds and preferences what it is."""

    domain: str
    id: str = ""
    part: Part | None = None
    """None outside rounds and preferences."""
    passed: bool = True
    """Of a text that the pivot wrote: whether it passed the check of its data set."""
    eligibility: tuple[float, ...] | None = None
    """Of each source in their order, the share of its answers to the prompt that passed their check; None where it is not
    known."""
