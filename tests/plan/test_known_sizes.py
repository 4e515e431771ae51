"""Sizes that come with the package are those that a model built from the configuration has."""

import json
from dataclasses import asdict

import pytest
from transformers import AutoConfig

from fusion.models.loading import ModelRef
from fusion.plan import architecture
from fusion.plan.known_sizes import known_sizes
from fusion.quickstart import MODELS

FIELDS = {name: json.loads((path / "config.json").read_text()) for name, path in MODELS.items()}
FIELDS |= architecture._bundled()


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_known_is_what_the_model_has(name):
    measured = asdict(architecture.describe(AutoConfig.for_model(**FIELDS[name])))
    assert known_sizes(FIELDS[name]) == {field: size for field, size in measured.items() if field != "bundled"}


def test_another_configuration_is_measured(tmp_path):
    fields = FIELDS["pivot"] | {"num_hidden_layers": 3}
    assert known_sizes(fields) is None
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert architecture.load_architecture(ModelRef(str(tmp_path))).layers == 3


def test_with_another_version_of_transformers_nothing_is_known(monkeypatch):
    monkeypatch.setattr("fusion.plan.known_sizes.__version__", "0.0")
    assert known_sizes(FIELDS["pivot"]) is None
