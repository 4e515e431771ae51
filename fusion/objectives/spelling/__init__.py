"""Objectives that compare tokens by their spelling."""
