"""Rounds: their settings, and what these must be."""

from fusion.config.rounds.settings import Rounds

__all__ = ["Rounds"]
