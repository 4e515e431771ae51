"""Objectives that compare the likelihood of spans of text."""
