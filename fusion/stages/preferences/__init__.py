"""Preferences, last of all: the pivot learns to find right answers likelier than wrong ones to the same prompt.

sequence  step by step
context  this training as a run of its own     answers  what sources and the pivot wrote, as it was judged
pairs    which answers are compared            learn    who reads them, and what the training knows of them
"""
