"""The process and its disk: artifacts and what made them, ranks, progress, and the record of a run."""
