"""Every causal architecture of transformers, as a tiny random model, through the whole chain of a run."""
