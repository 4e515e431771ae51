import pytest

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import Linear
from tests.helpers.families import WEIGHTS


@pytest.fixture
def expected(family, tmp_path):
    """The weights of the merge."""
    return (merge(*family, Linear(), tmp_path / "whole").folder / WEIGHTS).read_bytes()
