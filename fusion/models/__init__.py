"""Models and tokenizers: loaded, asked for text, and turned from hidden states into rows of logits."""
