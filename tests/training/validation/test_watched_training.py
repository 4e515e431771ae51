"""Curves on validation examples: against held-out evaluation of the model that was trained, and what they must not change."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from fusion import pipeline
from fusion.config import loading, plain_fine_tuning
from fusion.models.loading import ModelRef, vocabulary_size
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format
from fusion.training import TrainingCollator, fit
from fusion.training.fit import TrainingSpec
from fusion.training.validation import ValidationTexts, validation_arguments
from fusion.weighting import Sum
from fusion_eval.results import Result
from fusion_eval.runners.heldout import HeldoutSettings, score
from fusion_eval.statistics.comparison import summarise
from tests.helpers import runs


def watched(folder, name="watched", validation=True, **changes):
    """A run of one training beside the baseline, with 7 validation examples in two domains."""
    raw = runs.raw(folder, name=name, strategies=["unified"])
    path = runs.write_data(folder, "validation.jsonl", 7, start=200)
    if validation:
        raw["data"]["validation"] = [{"path": path, "domain": f"d{i}", "where": {"domain": i}} for i in range(2)]
    raw["training"] |= {"report_to": []} | changes.pop("training", {})
    return loading.parse(raw | changes, "test")


def log_of(config, training="unified"):
    return json.loads((config.folder / "train" / training / "log.json").read_text())


def curve(config, training="unified"):
    return [entry for entry in log_of(config, training) if "eval_bits_per_byte" in entry]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A watched run and the same without validation examples, which share the caches."""
    folder = tmp_path_factory.mktemp("watched")
    shared = {"store": str(folder / "store")}
    for config in (watched(folder, **shared), watched(folder, "plain", validation=False, **shared)):
        pipeline.run(config, until="train")
    return folder


@pytest.fixture(scope="module")
def config(folder):
    return watched(folder, store=str(folder / "store"))


@pytest.mark.parametrize("training", ["unified", "fine-tuned"])
def test_weights_and_losses_are_the_same_to_the_bit_without_validation_examples(folder, config, training):
    plain = folder / "runs" / "plain" / "train" / training
    mine = load_file(config.folder / "train" / training / "model" / "model.safetensors")
    other = load_file(plain / "model" / "model.safetensors")
    assert mine.keys() == other.keys()
    assert all(weight.equal(other[name]) for name, weight in mine.items())
    steps = [entry for entry in log_of(config, training) if "loss" in entry]
    assert steps == json.loads((plain / "log.json").read_text())
    assert len(curve(config, training)) == 5


def test_the_last_point_is_what_held_out_evaluation_says_of_the_trained_model(config):
    context = RunContext(config)
    examples = context.validation_examples
    formats = [prompt_format(context, "pivot", example) for example in examples]
    ref = ModelRef(str(config.folder / "train" / "unified" / "model"))
    samples = score(ref, examples, formats, HeldoutSettings(), progress=lambda _: None)
    expected = summarise(Result(model="m", suite="s", path="p", samples=samples, provenance={}))
    last = curve(config)[-1]
    for metric in ("bits_per_byte", "calibration_error"):
        assert last[f"eval_{metric}"] == pytest.approx(expected["mean"][metric].value, rel=1e-5)
        for domain in ("d0", "d1"):
            assert last[f"eval_{metric}/{domain}"] == pytest.approx(expected[domain][metric].value, rel=1e-5)
    assert last["step"] == 4


def test_entropy_and_accuracy_of_tokens_are_those_of_the_trained_models_whole_distribution(config):
    context, by_domain = RunContext(config), {"d0": [], "d1": []}
    model = AutoModelForCausalLM.from_pretrained(config.folder / "train" / "unified" / "model", dtype=torch.float64)
    size = vocabulary_size(context.tokenizers["pivot"])
    for example, text in zip(context.validation_examples, context.validation_texts, strict=True):
        ids = torch.tensor(text.input_ids)
        with torch.no_grad():
            p = model(ids[None]).logits[0, text.start - 1 : -1, :size].softmax(-1)
        rows = text.num_rows - (text.prefix[-1] == len(example.response.encode()))  # without the end of turn
        right = p.argmax(-1) == ids[text.start :]
        by_domain[example.domain] += list(zip(-(p * p.log()).sum(-1)[:rows], right[:rows], strict=True))
    last = curve(config)[-1]
    for name, number in (("entropy", 0), ("mean_token_accuracy", 1)):
        means = {domain: sum(float(row[number]) for row in rows) / len(rows) for domain, rows in by_domain.items()}
        assert last[f"eval_{name}"] == pytest.approx(sum(means.values()) / 2, rel=1e-5)
        assert {domain: last[f"eval_{name}/{domain}"] for domain in means} == pytest.approx(means, rel=1e-5)


def test_the_first_point_is_of_the_pivot_before_the_first_step_and_the_same_in_all_trainings(config):
    first, other = curve(config)[0], curve(config, "fine-tuned")[0]
    assert first["step"] == 0
    assert first == other
    assert [entry["step"] for entry in curve(config)] == [0, 1, 2, 3, 4]
    assert len({entry["eval_bits_per_byte"] for entry in curve(config)}) == 5


class KilledError(RuntimeError):
    """Ends a training where its process would be killed."""


def trained(folder, name, stop_at=None, pack=False, batch=4, **arguments):
    """The log of a training on the watched run's examples alone, which stops at a step as if it were killed."""
    config = watched(folder, training=arguments)
    context = RunContext(config)
    texts = ValidationTexts(context.validation_examples, context.validation_texts)

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop_at:
                raise KilledError

    spec = TrainingSpec(
        config.pivot.ref,
        context.tokenizers["pivot"],
        TrainingCollator(context.train_examples, context.encoded("pivot")[: len(context.train_examples)], [], Sum()),
        plain_fine_tuning(),
        {**config.training, **validation_arguments(config.training), "per_device_eval_batch_size": batch},
        config.seed,
        config.dtype,
        pack_length=40 if pack else None,
        validation=texts,
    )
    fit.train(spec, folder / name, [Kill()])
    return json.loads((folder / name / "log.json").read_text())


def evaluations(log):
    return [{k: v for k, v in entry.items() if k.startswith("eval_") or k == "step"} for entry in log if eval_in(entry)]


def eval_in(entry):
    return any(name.startswith("eval_") for name in entry)


@pytest.fixture(scope="module")
def whole(folder):
    """The log of one training of eight steps that is read on every third, and logged on every second."""
    return trained(folder, "whole", max_steps=8, eval_steps=3, logging_steps=2, save_steps=2)


@pytest.mark.parametrize("stop_at", [5, 6])
def test_a_training_that_is_killed_and_goes_on_has_the_same_curves(folder, whole, stop_at):
    arguments = {"max_steps": 8, "eval_steps": 3, "logging_steps": 2, "save_steps": 2}
    with pytest.raises(KilledError):
        trained(folder, f"killed-{stop_at}", stop_at, **arguments)
    assert (folder / f"killed-{stop_at}" / "checkpoint-4").exists()
    assert trained(folder, f"killed-{stop_at}", **arguments) == whole


def test_it_is_read_at_the_start_each_so_many_steps_and_at_the_end_apart_from_the_log_of_steps(whole):
    assert [entry["step"] for entry in whole if eval_in(entry)] == [0, 3, 6, 8]
    assert [entry["step"] for entry in whole if "loss" in entry] == [2, 4, 6, 8]
    assert all("entropy" in entry for entry in whole if "loss" in entry)
    assert not any("loss" in entry for entry in whole if eval_in(entry))


@pytest.mark.parametrize("how", [{"batch": 1}, {"batch": 7}, {"pack": True}])
def test_how_many_are_read_at_once_and_whether_they_are_packed_does_not_change_the_numbers(folder, whole, how):
    place = "-".join(map(str, how))
    found = evaluations(trained(folder, f"{place}-{how.get('batch')}", max_steps=1, **how))
    first = evaluations(whole)[0]
    assert found[0] == pytest.approx(first, rel=1e-5)


def test_accumulated_steps_are_watched_at_whole_steps(folder):
    log = trained(
        folder, "accumulated", max_steps=4, eval_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    assert [entry["step"] for entry in log if eval_in(entry)] == [0, 2, 4]


def test_epochs_are_watched_where_the_strategy_says_so(folder):
    log = trained(folder, "epochs", max_steps=-1, num_train_epochs=2, eval_strategy="epoch", eval_on_start=False)
    assert [entry["step"] for entry in log if eval_in(entry)] == [4, 8]
