"""The arithmetic of merging: each method is a type with settings and a rule for one tile of one tensor."""
