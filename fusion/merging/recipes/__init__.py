"""A merge as a file: our recipes, and mergekit's."""
