"""Load models and tokenizers, generate completions, and compute rows of logits from hidden states (`head`)."""
