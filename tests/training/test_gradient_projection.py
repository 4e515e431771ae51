"""A term that may not oppose the others: what is left of its gradient, and how a training adds it up over a step."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fusion import pipeline
from fusion.cache import Cache
from fusion.models.head import Head
from fusion.models.loading import load_model, vocabulary_size
from fusion.objectives import CrossEntropy, DualHead, ForwardKL
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.training import TrainingCollator
from fusion.training.auxiliary_modules import attach_modules, build_modules
from fusion.training.fit import training_arguments
from fusion.training.gradient_projection import GradientProjection, projected
from fusion.training.trainer import FusionTrainer
from tests.helpers import runs, spread


def inner(a, b):
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


def random_pair(seed):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(*shape, generator=generator).double() for shape in ((3, 4), (5,))] for _ in range(2)]


def test_what_opposes_the_others_is_taken_out_and_all_else_stays():
    opposed = 0
    for seed in range(40):
        mine, others = random_pair(seed)
        left, dot = projected(mine, others), inner(mine, others)
        if dot >= 0:
            assert all(torch.equal(a, b) for a, b in zip(left, mine, strict=True))
            continue
        opposed += 1
        assert abs(inner(left, others)) < 1e-12
        taken = [a - b for a, b in zip(mine, left, strict=True)]
        along = dot / inner(others, others)
        assert all(torch.allclose(part, along * h) for part, h in zip(taken, others, strict=True))
    assert 10 < opposed < 30


def test_all_layers_are_one_vector():
    """Of two layers, one of which opposes, none is changed where the whole does not oppose."""
    mine, others = [torch.tensor([-1.0]), torch.tensor([3.0])], [torch.tensor([1.0]), torch.tensor([1.0])]
    assert projected(mine, others) == mine
    mine = [torch.tensor([-3.0]), torch.tensor([1.0])]
    assert projected(mine, others) == [torch.tensor([-2.0]), torch.tensor([2.0])]


def test_where_the_others_have_no_gradient_nothing_is_taken():
    mine, _ = random_pair(0)
    left = projected(mine, [torch.zeros_like(each) for each in mine])
    assert all(torch.equal(a, b) for a, b in zip(left, mine, strict=True))


def test_gradients_are_added_up_over_micro_batches_before_they_are_compared():
    """The first half alone opposes; the whole step does not."""
    weight, untouched = nn.Parameter(torch.tensor([1.0, 0.0])), nn.Parameter(torch.ones(1))

    def found():
        gradient, weight.grad = weight.grad, None
        return None if gradient is None else gradient.tolist()

    apart = GradientProjection([weight, untouched])
    for mine in ([-2.0, 1.0], [3.0, 1.0]):
        value = apart.add((weight * torch.tensor(mine)).sum())
        (value + weight[0]).backward()
        assert value.item() == mine[0]
    apart.join(lambda gradient: gradient)
    assert found() == [2.0 + 1.0, 2.0]
    assert untouched.grad is None
    (apart.add((weight * torch.tensor([-2.0, 1.0])).sum(), 8.0) + 8 * weight[0]).backward()
    apart.join(lambda gradient: gradient)  # nothing of the step before is left
    assert found() == [8.0, 8.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    pipeline.run(runs.config(folder), until="extract")
    return folder


@pytest.fixture(scope="module")
def made(folder):
    """A trainer's class for some objectives, on eight examples with both sources."""
    context = RunContext(runs.config(folder))
    names = [source.name for source in context.config.sources]
    sources = [train.training_source(context, name, Cache(context.config.folder / "cache" / name)) for name in names]
    collator = TrainingCollator(context.train_examples, context.encoded("pivot"), sources, context.weighting)

    def make(*objectives, **training):
        model = load_model(context.config.pivot.ref, "float32")
        modules = build_modules(
            objectives, sources, model.get_output_embeddings().weight.shape[-1], dtype="float32", seed=0
        )
        with torch.no_grad():
            for weight in modules.parameters():
                weight.neg_()  # what helps the one head now harms the other
        attach_modules(model, modules)
        arguments = {"max_steps": 1, "save_strategy": "no", "report_to": [], "learning_rate": 0.0} | training
        return FusionTrainer(
            model=model, head=Head.from_model(model, vocabulary_size(context.tokenizers["pivot"])),
            objectives=objectives, modules=modules,
            args=training_arguments(arguments, folder / "made", 0), train_dataset=range(8), data_collator=collator,
        )  # fmt: skip

    return make


def gradients(trainer, *micro_batches):
    """Of every weight after a step of so many micro-batches, and the loss."""
    given = [trainer.data_collator(numbers) for numbers in micro_batches]
    counts, loss = trainer._get_num_items_in_batch(given, torch.device("cpu")), 0.0
    for number, inputs in enumerate(given):
        trainer.accelerator.gradient_state._set_sync_gradients(number == len(given) - 1)
        loss += trainer.training_step(trainer.model, dict(inputs), counts).item()
    return {name: weight.grad for name, weight in trainer.model.named_parameters()}, loss


OPPOSED = {"loss": "binary_kl", "weight": 20.0}


def test_in_training_the_second_heads_gradient_is_aligned_and_nothing_else_is(made):
    """A sum of three known gradients: of the text alone, of the term alone, and of both with alignment."""
    text, _ = gradients(made(CrossEntropy()), range(8))
    term, _ = gradients(made(DualHead(**OPPOSED)), range(8))
    term = {name.replace("fusion_modules.0", "fusion_modules.1"): gradient for name, gradient in term.items()}
    head = "lm_head.weight"
    shared = [name for name in text if name != head]
    assert inner([text[name] for name in shared], [term[name] for name in shared]) < 0  # else this shows nothing
    left = dict(zip(shared, projected([term[n] for n in shared], [text[n] for n in shared]), strict=True))
    found, loss = gradients(made(CrossEntropy(), DualHead(gradient_alignment=True, **OPPOSED)), range(8))
    both, same = gradients(made(CrossEntropy(), DualHead(**OPPOSED)), range(8))
    assert loss == pytest.approx(same)
    for name in shared:
        torch.testing.assert_close(found[name], text[name] + left[name])
    assert not torch.allclose(found[shared[0]], both[shared[0]])
    torch.testing.assert_close(found[head], text[head])
    for name in term.keys() - text.keys():  # the term's own projectors
        assert term[name].abs().max() > 0
        torch.testing.assert_close(found[name], term[name])


def test_the_number_of_micro_batches_does_not_change_an_aligned_step(made):
    terms = (CrossEntropy(), ForwardKL(weight=0.1), DualHead(gradient_alignment=True, **OPPOSED))
    whole, loss = gradients(made(*terms), range(8))
    halves, same = gradients(made(*terms), range(3), range(3, 8))
    assert loss == pytest.approx(same)
    for name, gradient in whole.items():
        torch.testing.assert_close(halves[name], gradient, atol=2e-5, rtol=1e-3)


def test_layers_that_are_computed_again_give_the_same_gradients(made):
    terms = (CrossEntropy(), DualHead(gradient_alignment=True, **OPPOSED))
    whole, _ = gradients(made(*terms), range(8))
    trainer = made(*terms)
    trainer.model.gradient_checkpointing_enable()
    again, _ = gradients(trainer, range(8))
    for name, gradient in whole.items():
        torch.testing.assert_close(again[name], gradient)


def test_scaled_gradients_are_scaled_on_both_sides(made):
    """As with fp16, whose gradients are multiplied until the optimizer's step."""
    terms = (CrossEntropy(), DualHead(gradient_alignment=True, **OPPOSED))
    whole, loss = gradients(made(*terms), range(8))
    trainer = made(*terms)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, same = gradients(trainer, range(8))
    assert loss == pytest.approx(same)
    for name, gradient in whole.items():
        torch.testing.assert_close(scaled[name], 1024 * gradient)


@pytest.mark.slow
def test_two_processes_take_an_aligned_step_as_one(folder):
    changes = {"objectives": [{"kind": "cross_entropy"}, {"kind": "dual_head", **OPPOSED, "gradient_alignment": True}]}
    short = {"max_steps": 4}
    spread.train(folder, "one", training=short, **changes)
    plain = [changes["objectives"][0], {"kind": "dual_head", **OPPOSED}]
    spread.train(folder, "plain", training=short, objectives=plain)
    spread.spread(folder, 2, {"place": "two", "training": spread.HALF | short, **changes})
    places = ("two", "one", "plain")
    mine, theirs, other = (load_file(folder / place / "model/model.safetensors") for place in places)
    assert not all(torch.equal(weight, other[key]) for key, weight in theirs.items())  # it did oppose
    for key, weight in mine.items():
        torch.testing.assert_close(weight, theirs[key], atol=3e-5, rtol=0)
