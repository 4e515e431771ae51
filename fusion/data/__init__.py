"""Data sets to examples (`datasets`), examples to token ids (`encode`), token ids to batches (`batching`).

The causal shift, which row predicts which token, happens in `batching` and nowhere else: row r of a text is read at sequence
position `start - 1 + r`, whose logits predict `input_ids[start + r]`.
"""
