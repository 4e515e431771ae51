"""Grading of answers: extraction and comparison of final answers, and a sandbox that runs programs against tests."""
