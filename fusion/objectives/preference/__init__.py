"""Objectives that compare a right and a wrong answer to one prompt, by how likely models find them as a whole."""
