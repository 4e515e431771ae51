"""Keys that have another name now: of configurations, `--set`, studies, merge recipes, run.json and key.json.

One table, so that an old file is answered with the new name instead of a list of what is allowed.
"""

from collections.abc import Collection

RENAMED: dict[str, tuple[str, ...]] = {
    "rest": ("use_remaining_weight",),
    "student": ("quantization_aware_training",),
}
"""Old key -> what it is called now; several where it is called differently in different places."""


def new_name(key: str, allowed: Collection[str]) -> str | None:
    """What `key` is called now in a place where the keys `allowed` are known; None where it never had another name there."""
    return next((name for name in RENAMED.get(key, ()) if name in allowed), None)
