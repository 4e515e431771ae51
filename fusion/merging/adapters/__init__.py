"""Adapters as peft saves them: what they change of their base, and what cannot be folded in."""
