"""What is known of an example besides its rows."""

from typing import NamedTuple


class ExampleInfo(NamedTuple):
    """The domain and the content id of an example."""

    domain: str
    id: str = ""
