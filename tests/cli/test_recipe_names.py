"""Recipes by name."""

import pytest
from typer.testing import CliRunner

from fusion.cli.app import app
from fusion.config.recipes import recipes


def test_a_recipe_is_printed_as_it_stands():
    said = CliRunner().invoke(app, ["recipes", "quickstart"])
    assert said.output == recipes()["quickstart"].read_text()


def test_a_name_that_is_none_is_refused_with_what_is_near():
    with pytest.raises(ValueError, match="There is no recipe quickstar; did you mean quickstart"):
        CliRunner().invoke(app, ["recipes", "quickstar"], catch_exceptions=False)
