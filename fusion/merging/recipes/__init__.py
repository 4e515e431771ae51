"""A merge as a YAML file: our recipes, and mergekit's."""
