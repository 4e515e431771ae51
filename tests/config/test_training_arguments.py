"""The table of TrainingArguments is that of the class, and another version of transformers is asked itself."""

import json

import pytest

from fusion.config import training_arguments as arguments
from fusion.config.training import _checked


def test_the_table_is_what_the_installed_class_says():
    assert json.loads(arguments.TABLE.read_text()) == json.loads(json.dumps(arguments.describe_class()))


def test_names_and_defaults_are_those_of_the_class():
    table, own = arguments.training_arguments(), arguments._from_class()
    assert {name: argument.default for name, argument in table.items()} == {name: own[name].default for name in own}


def test_another_version_of_transformers_is_asked_itself(monkeypatch):
    monkeypatch.setattr("transformers.__version__", "0.0")
    assert arguments.training_arguments() == arguments._from_class()


@pytest.mark.parametrize("version", ["0.0", None])
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"lr_scheduler_type": "cosin"}, "cosine"),
        ({"optim": "nope"}, "allowed are"),
        ({"learning_rate": "abc"}, "a number"),
        ({"bf16": "false"}, "true or false"),
        ({"label_smoothing_factor": 0.1}, "loss"),
        ({"learnin_rate": 1.0}, "learning_rate"),
    ],
)
def test_mistakes_are_the_same_from_the_table_and_from_the_class(given, problem, version, monkeypatch):
    if version is not None:
        monkeypatch.setattr("transformers.__version__", version)
    with pytest.raises(ValueError, match=problem):
        _checked(given)


def test_right_values_stay_what_they_are():
    given = {"lr_scheduler_type": "cosine", "learning_rate": 1e-4, "save_strategy": "no", "optim": "sgd"}
    assert _checked(given) == given
