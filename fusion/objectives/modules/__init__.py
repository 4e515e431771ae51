"""Objectives that train a module of their own beside the pivot."""
