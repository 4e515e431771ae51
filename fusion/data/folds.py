"""Folds for cross-fitting: a source is fine-tuned once per fold, on the other folds, and reads the fold it was not trained on.

Source: cross-fitted teachers, Dao et al. 2021, arXiv:2104.09732.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusion.data.example import Example


def assign_folds(examples: Sequence[Example], count: int) -> dict[str, int]:
    """Return the fold, 0 to `count` - 1, of each `prompt_key`; prompts are assigned in turn, so that each domain is split.

    Raises ValueError where there are fewer prompts than folds.
    """
    prompts = list(dict.fromkeys(prompt_key(example) for example in examples))
    if len(prompts) < count:
        raise ValueError(
            f"fine_tune.folds is {count}, and the training data have {len(prompts)} different prompts; use at most as many."
        )
    return {prompt: number % count for number, prompt in enumerate(prompts)}


def prompt_key(example: Example) -> str:
    """Return the id by which responses to one prompt stay in one fold: that of the prompt, or of raw text itself."""
    return example.prompt_id if example.prompt else example.id
