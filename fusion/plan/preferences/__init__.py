"""What preferences take at most."""

from fusion.plan.preferences.stages import preference_stages

__all__ = ["preference_stages"]
