"""Reading: rows of data files as they stand there, which columns are what, and conversations as messages."""

from fusion.data.reading.places import READERS, read_rows
from fusion.data.reading.row import Row, value_text

__all__ = ["READERS", "Row", "read_rows", "value_text"]
