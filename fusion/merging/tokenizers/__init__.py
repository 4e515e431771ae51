"""Tokenizers of a merge: what their files say of tokens and texts, and which one the result has."""
