"""Cross-fitting: a source is fine-tuned once for each part of the data, on the others, and reads what it was not trained on.

Source: cross-fitted teachers, Dao et al. 2021, arXiv:2104.09732.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusion.data.datasets import Example


def assign_folds(examples: Sequence[Example], count: int) -> dict[str, int]:
    """By `prompt_of`: which of `count` parts its examples belong to; prompts take turns, so that each domain is split.

    Raises ValueError where there are fewer prompts than parts.
    """
    prompts = list(dict.fromkeys(prompt_key(example) for example in examples))
    if len(prompts) < count:
        raise ValueError(
            f"fine_tune.folds is {count}, and the training data have {len(prompts)} different prompts; use at most as many."
        )
    return {prompt: number % count for number, prompt in enumerate(prompts)}


def prompt_key(example: Example) -> str:
    """What names the prompt, so that all responses to it stay together; of text without one, the text itself."""
    return example.prompt_id if example.prompt else example.id
