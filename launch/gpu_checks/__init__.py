"""Checks of fusion on one GPU, without a network: is bf16 right, what does a step cost, what does the loss take.

runner         the command line: runs the groups of checks one after another, prints a table, writes JSON
check          what a group is given (`CheckContext`) and what it yields (`Check`: a number and its bounds)
shapes         random models of real shapes, with tokenizers made on the spot
precision      training, extraction and evaluation in bfloat16 against float32
ratios         a fusion step against a plain one, extraction against the bare forward pass
memory         peak of the loss on a large vocabulary
quickstart     the whole quickstart, its table against the published one
"""
