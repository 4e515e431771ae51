"""Data sets as examples, examples as token ids, token ids as batches."""
