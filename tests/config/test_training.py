"""TrainingArguments as they are read: names, types, choices, ranges, and what would do nothing."""

import pytest
from pydantic import TypeAdapter, ValidationError

from fusion.config.training import OURS, WITHOUT_EFFECT, Arguments

READ = TypeAdapter(Arguments).validate_python
WRONG = [
    ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type is 'cosin'; did you mean cosine?"),
    ({"optim": "nope"}, "optim is 'nope'; allowed are"),
    ({"save_strategy": "sometimes"}, "save_strategy is 'sometimes'; allowed are best, epoch, no, steps"),
    ({"learning_rate": "abc"}, "learning_rate must be a number, got 'abc'"),
    ({"learning_rate": -1e-4}, "learning_rate must be at least 0, got -0.0001"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number, got nan"),
    ({"learning_rate": True}, "learning_rate must be a number, got true"),
    ({"bf16": "false"}, "bf16 must be true or false, got 'false'"),
    ({"bf16": 1}, "bf16 must be true or false, got 1"),
    ({"gradient_checkpointing": "yes"}, "gradient_checkpointing must be true or false, got 'yes'"),
    ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
    ({"per_device_train_batch_size": 2.5}, "per_device_train_batch_size must be a whole number, got 2.5"),
    ({"num_train_epochs": 0}, "num_train_epochs must be above 0, got 0"),
    ({"adam_beta2": 1.5}, "adam_beta2 must be at least 0 and at most 1, got 1.5"),
    ({"max_steps": -5}, "max_steps must be at least -1, got -5"),
    ({"report_to": 3}, "report_to must be a text or a list, got 3"),
    ({"label_smoothing_factor": 0.1}, "label_smoothing_factor changes transformers' own loss"),
    ({"save_only_model": True}, "save_only_model leaves checkpoints that a training cannot go on from"),
    ({"eval_strategy": "steps"}, "eval_strategy is for evaluation during training"),
    ({"load_best_model_at_end": True}, "load_best_model_at_end is for evaluation during training"),
    ({"learning_rat": 1e-4}, "learning_rat is not a TrainingArgument; did you mean learning_rate?"),
    ({"deepspeed": "x.json"}, "deepspeed is chosen by engine"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=lambda each: str(each)[:40])
def test_what_cannot_be_is_said_with_what_can(given, said):
    with pytest.raises(ValidationError) as error:
        READ(given)
    assert said in str(error.value)


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ValidationError) as error:
        READ({"learning_rat": 1, "optim": "nope", "bf16": "no"})
    for key in ("learning_rat ", "optim ", "bf16 "):
        assert key in str(error.value)


def test_values_are_read_as_their_types():
    given = {
        "learning_rate": "1e-4",
        "save_strategy": False,
        "report_to": [],
        "warmup_steps": 5,
        "lr_scheduler_type": "cosine",
    }
    found = READ(given)
    assert found == given | {"learning_rate": 1e-4, "save_strategy": "no"}
    assert READ({"label_smoothing_factor": 0.0, "include_for_metrics": []})  # what is the default anyway


def test_every_name_that_is_refused_is_one_of_transformers():
    from dataclasses import fields

    from transformers import TrainingArguments

    assert {*OURS, *WITHOUT_EFFECT} <= {field.name for field in fields(TrainingArguments)}
