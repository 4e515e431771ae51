"""Objectives that compare hidden states."""
