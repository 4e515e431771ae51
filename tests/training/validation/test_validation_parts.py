"""What is scored of a text, who reads which, when that is, and sums of calibration: by hand."""

import math

import pytest
import torch

from fusion.core.calibration import BINS, calibration_sums
from fusion.core.rows import LogitRows
from fusion.data.batching import pad_texts
from fusion.data.encode import Encoded
from fusion.data.example import Example
from fusion.models.head import Head
from fusion.training.validation import ValidationTexts, read_validation, validation_arguments, validation_points
from tests.helpers import tiny


def texts(*encoded, response="abcdef"):
    messages = ({"role": "user", "content": "q"},)
    return ValidationTexts([Example(messages, response, "d") for _ in encoded], encoded)


@pytest.mark.parametrize(
    ("prefix", "truncated", "scored"),
    [
        ([0, 2, 5, 6], False, (3, 6)),  # the last row predicts the end of turn
        ([0, 2, 5], False, (3, 6)),  # a tokenizer without one
        ([0, 2, 5], True, (2, 5)),  # how many bytes the last token has is not known
        ([0, 2, -1], True, (1, 2)),  # nor where a character is split
        ([0], True, (0, 0)),
    ],
)
def test_all_bytes_of_a_response_are_scored_and_of_a_cut_one_those_before_its_last_token(prefix, truncated, scored):
    assert texts(Encoded([1, *range(len(prefix))], 1, prefix, truncated)).scored(0) == scored


@pytest.mark.parametrize(("count", "size", "processes"), [(7, 2, 1), (7, 2, 3), (2, 4, 3), (9, 4, 2)])
def test_each_example_is_read_once_in_as_many_batches_by_every_process(count, size, processes):
    every = texts(*(Encoded([1] * (n % 4 + 2), 1, [0] * (n % 4 + 1), truncated=False) for n in range(count)))
    batches = [every.batches(size, rank, processes) for rank in range(processes)]
    assert len({len(of_process) for of_process in batches}) == 1
    assert sorted(n for of_process in batches for batch in of_process for n in batch) == list(range(count))
    assert all(len(batch) <= size for of_process in batches for batch in of_process)
    longest = [len(every.encoded[n].input_ids) for batch in batches[0] for n in batch]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize(
    ("given", "steps", "epochs", "points"),
    [
        ({}, 564, 3, 11),
        ({}, 4, 1, 5),
        ({"eval_on_start": False}, 564, 3, 10),
        ({"eval_steps": 3}, 8, 1, 4),
        ({"eval_steps": 3, "eval_delay": 4}, 8, 1, 3),
        ({"eval_strategy": "epoch"}, 8, 2, 3),
        ({"eval_strategy": "no"}, 8, 2, 0),
    ],
)
def test_how_often_examples_are_read_in_a_training(given, steps, epochs, points):
    assert validation_points(validation_arguments(given), steps, epochs) == points


def test_arguments_are_ours_where_the_user_gives_none():
    ours = {"eval_strategy": "steps", "eval_steps": 0.1, "eval_on_start": True, "per_device_eval_batch_size": 4}
    assert validation_arguments({"per_device_train_batch_size": 4, "learning_rate": 1}) == ours
    assert validation_arguments({"per_device_train_batch_size": 4, "eval_steps": 7}) == ours | {"eval_steps": 7}
    assert validation_arguments({"eval_steps": None})["eval_steps"] == 0.1


def test_a_reading_leaves_weights_gradients_mode_and_random_numbers_as_they_were():
    model = tiny.model("llama").train()
    model.register_forward_hook(lambda *_: torch.rand(3))  # as an architecture that draws in evaluation mode too
    every = texts(*(Encoded(list(range(1, n)), 2, list(range(n - 3)), truncated=False) for n in (9, 6)))
    before, state = {name: each.clone() for name, each in model.state_dict().items()}, torch.get_rng_state()
    found = read_validation(
        model, Head.from_model(model, 50), every, pad_texts_on_cpu, batch_size=1, device=torch.device("cpu"),
        add_up=lambda sums: sums,
    )  # fmt: skip
    assert found["eval_bits_per_byte"] > 0
    assert torch.get_rng_state().equal(state)
    assert model.training
    assert all(each.equal(before[name]) for name, each in model.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def pad_texts_on_cpu(encoded):
    return pad_texts(encoded, "cpu")


def rows(confidence, gold, example):
    n = len(confidence)
    unknown = torch.full((n,), math.nan)
    numbers = {"logprobs": torch.tensor(confidence).log()[:, None], "ids": torch.zeros(n, 1, dtype=torch.long)}
    numbers |= {"gold": torch.tensor(gold).log(), "mean": unknown, "std": unknown}
    return LogitRows(prefix=torch.arange(n), example=torch.tensor(example), **numbers)


def test_calibration_sums_are_confidence_less_success_by_tenth_and_group():
    sums = calibration_sums(rows([0.95, 0.91, 0.42, 1.0], [0.95, 0.01, 0.42, 1.0], [0, 0, 0, 1]), 2)
    expected = torch.zeros(2, BINS + 1, dtype=torch.float64)
    expected[0, 9], expected[0, 4], expected[0, -1] = 0.95 - 1 + 0.91, 0.42 - 1, 3
    expected[1, -1] = 1
    torch.testing.assert_close(sums, expected, atol=1e-6, rtol=0)


def test_a_model_that_says_nan_has_an_error_of_nan_and_ends_nothing():
    sums = calibration_sums(rows([math.nan, 0.5], [math.nan, 0.5], [0, 1]), 2)
    assert sums[0, :-1].sum().isnan()
    assert sums[1, :-1].abs().sum().item() == pytest.approx(0.5)
