"""Preferences: their settings, and what these must be."""

from fusion.config.preferences.settings import Preferences

__all__ = ["Preferences"]
