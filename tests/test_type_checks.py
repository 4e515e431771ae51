"""Types are checked in every function of the package while tests run, also in one that is made anew by each call of another."""

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError, jaxtyped

from fusion.core.markdown import plain
from fusion.core.tail import with_other
from tests.helpers import type_checks


def made(of=int):
    @jaxtyped(typechecker=type_checks.checked)
    def doubled(number: of) -> int:
        return 2 * number

    return doubled


def test_each_one_that_is_made_is_checked():
    for _ in range(3):
        assert made()(2) == 4
        with pytest.raises(TypeCheckError):
            made()("no number")
        with pytest.raises(TypeCheckError):
            made(str)("not what comes back")


def test_the_checks_of_one_that_is_made_again_are_not_written_again(monkeypatch):
    made()
    monkeypatch.setattr(type_checks, "beartype", None)
    assert made()(2) == 4
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        made(float)


def test_functions_of_the_package_are_checked_with_and_without_arrays():
    with pytest.raises(BeartypeCallHintParamViolation):
        plain(3)
    with pytest.raises(TypeCheckError, match="logprobs"):
        with_other(torch.zeros(3))
