"""Objectives that compare graphs over all logits of an example."""
