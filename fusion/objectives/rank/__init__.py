"""Objectives that compare the largest logits by rank, whatever tokens they belong to."""
