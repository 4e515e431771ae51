"""Rows that another program listed, in a file or a server's answer, and the checks that they are what they should be.

`ListedRows` holds them as they came. `check_numbers` looks at each row alone, `SourceCheck` at all rows of a source together;
importers and servers both call the two. `precision` says how far a value may be from the model's own.
"""

from fusion.sources.listed.numbers import check_numbers
from fusion.sources.listed.precision import dtype_errors, inferred_errors
from fusion.sources.listed.rows import ListedRows, logprob_of_token, padded_rows, top_entries
from fusion.sources.listed.source_check import SourceCheck

__all__ = [
    "ListedRows",
    "SourceCheck",
    "check_numbers",
    "dtype_errors",
    "inferred_errors",
    "logprob_of_token",
    "padded_rows",
    "top_entries",
]
