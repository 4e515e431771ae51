"""All examples of a run as the tokens of one model: encoded together, once, and kept in the run's folder.

`RUN/tokens/MODEL/KEY/` holds the arrays of `EncodedTexts`, where KEY is a hash of all that made them. Later stages and commands
read them from there, as they are needed, so that memory does not grow with the number of tokens.
"""

from fusion.stages.encodings.examples import encode_examples, encoded_examples

__all__ = ["encode_examples", "encoded_examples"]
