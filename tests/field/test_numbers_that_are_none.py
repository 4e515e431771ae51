"""Models whose numbers are none somewhere: each command stops where they arise, and masked vocabularies are no fault."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusion import pipeline
from fusion.cache import Cache, CacheWriter
from fusion.cache import writer as writer_module
from fusion.core.rows import LogitRows
from fusion.data.encode import encode
from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.extras.draft import DraftSettings
from fusion.extras.draft.train_and_measure import DraftData, train_and_measure
from fusion.models.head import Head
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.sources import TransformersSource
from fusion.stages import extract
from fusion.stages.context import RunContext
from fusion.stages.respond import reads
from fusion.training import fit
from fusion_eval.runners import heldout
from fusion_eval.runners.heldout import HeldoutSettings, score
from tests.helpers import runs

NAN, INF = float("nan"), float("inf")
WORD = " 🙂"
"""Stands in some examples of the run, and its tokens are not among those that a model is tried with when it is loaded."""


def spoil(folder, value, word=WORD):
    """Put a value into the embeddings of a word: the model is good until it reads it."""
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "embed_in" in name or "embed_tokens" in name)
    weights[name][tokenizer(word, add_special_tokens=False)["input_ids"][-1], 0] = value
    save_file({key: weight.clone() for key, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def folder(tmp_path):
    runs.models(tmp_path)
    return tmp_path


@pytest.mark.parametrize("changes", [
    {}, {"extract": {"value_format": "float16"}},
    {"extract": {"value_format": "float32"}, "weighting": {"kind": "gold_posterior"}},
    {"weighting": {"kind": "sum"}, "objectives": [{"kind": "forward_kl"}]},
], ids=["packed", "float16", "gold posterior", "sum, no selection"])  # fmt: skip
def test_a_source_that_says_nan_stops_at_the_example_whatever_the_settings(folder, changes):
    spoil(folder / "neox", NAN)
    config = runs.config(folder, **changes)
    with pytest.raises(
        ValueError, match=r"^source neox \(.*neox, float32\): in example \w+ \('number \d+: '\) behind \d+ bytes"
    ) as found:
        pipeline.run(config)
    assert "log-probabilities are NaN or infinite" in str(found.value)
    for advice in ("value_format", "sum", "mean", "select"):  # none of them would mend it
        assert advice not in str(found.value).split("infinite", 1)[1]
    assert not list((config.folder / "cache/neox").glob("shard-*"))
    assert not (config.folder / "train").exists()


def test_a_pivot_that_says_nan_stops_before_it_is_trained(folder):
    spoil(folder / "pivot", NAN)
    with pytest.raises(ValueError, match=r"^the pivot \(.*pivot, float32\): in example \w+"):
        pipeline.run(runs.config(folder))


def test_numbers_beyond_float16_name_the_type_as_the_way_out(folder):
    spoil(folder / "neox", 1e5)  # a number of float32, and infinite in float16
    config = runs.config(folder, extract={"dtype": "float16"})
    with pytest.raises(
        ValueError, match=r"^source neox \(.*, float16\): .*set extract\.dtype to bfloat16 or float32\.$"
    ):
        pipeline.run(config, until="extract")


def test_rows_of_a_cache_that_are_none_are_not_trained_on(tmp_path, monkeypatch):
    """Such as one that another program wrote, or an earlier version."""
    rows = LogitRows(
        logprobs=torch.tensor([[-0.5, -1.0], [NAN, NAN]]), ids=torch.tensor([[1, 2], [3, 4]]), gold=torch.tensor([-0.5, -1.0]),
        mean=torch.zeros(2), std=torch.ones(2), prefix=torch.tensor([0, 4]), example=torch.tensor([0, 1]),
    )  # fmt: skip
    writer = CacheWriter(tmp_path / "cache", {}, ["a", "b"], 2, "float32", vocabulary=9)
    with pytest.raises(ValueError, match=r"cache: in example b behind 4 bytes of the response its log-prob.*no cache"):
        writer.write(0, rows)
    with monkeypatch.context() as earlier:
        earlier.setattr(writer_module, "row_fault", lambda _: None)
        writer.write(0, rows)
    cache = writer.finalize()
    assert len(cache.rows(["a"])) == 1
    with pytest.raises(
        ValueError, match=r"cache: in example b behind 4 bytes of the response its log-prob.*fusion extract"
    ):
        Cache(tmp_path / "cache").rows(["a", "b"])


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_model_whose_likelihood_is_none_has_no_score(folder, value):
    spoil(folder / "pivot", value)
    ref = ModelRef(str(folder / "pivot"))
    examples = [
        Example(({"role": "user", "content": "number 1: "},), text, "d")
        for text in ("the lazy dog", f"a fox{WORD} fox")
    ]
    message = rf"pivot \(float32\): held-out example {examples[1].id} of domain d has no likelihood: behind \d+ bytes"
    with pytest.raises(ValueError, match=message):
        score(ref, examples, [PromptFormat()] * 2, HeldoutSettings(), progress=lambda _: None)


def masked(folder, ids):
    """A model whose output layer masks some ids, as those of padded or reserved tokens."""
    model, tokenizer = load_model(ModelRef(str(folder))), load_tokenizer(ModelRef(str(folder)))
    layer = model.get_output_embeddings()
    bias = torch.zeros(layer.weight.shape[0])
    bias[ids] = -INF
    layer.bias = torch.nn.Parameter(bias)
    return model, tokenizer


def unused(tokenizer, texts):
    used = {id for text in texts for id in text.input_ids}
    return [id for id in range(vocabulary_size(tokenizer)) if id not in used][:40]


@pytest.mark.parametrize("k", [10, None])
def test_a_masked_vocabulary_is_no_fault(folder, k):
    model, tokenizer = masked(folder / "qwen", [])
    texts = [encode(tokenizer, [], text) for text in ("the lazy dog", "12 + 30 is 42")]
    ids = unused(tokenizer, texts)
    model, _ = masked(folder / "qwen", ids)
    head = Head.from_model(model, vocabulary_size(tokenizer))
    head.check_against_model(model)
    rows = TransformersSource(model, head.for_frozen_model(), k or head.vocabulary).rows(texts)
    assert rows.gold.isfinite().all()
    assert rows.logprobs[rows.ids >= 0].isfinite().all()
    assert not set(rows.ids.flatten().tolist()) & set(ids)
    assert (rows.ids < 0).sum() == (0 if k else len(ids) * len(rows))
    kept = rows.logprobs.exp().sum(-1)
    assert kept.max() <= 1 + 1e-5
    assert k or kept.min() >= 1 - 1e-5


@pytest.mark.parametrize("value", [NAN, INF])
def test_other_numbers_in_an_output_layer_are_a_fault(folder, value):
    model, tokenizer = masked(folder / "qwen", [])
    with torch.no_grad():
        model.get_output_embeddings().bias[5] = value
    with pytest.raises(
        ValueError, match=r"its logits are not finite numbers; so are values of lm_head\.bias in its files"
    ):
        Head.from_model(model, vocabulary_size(tokenizer)).check_against_model(model)


def test_a_training_that_breaks_its_weights_leaves_no_model(folder):
    training = runs.raw(folder)["training"] | {"learning_rate": 1e38, "lr_scheduler_type": "constant"}
    config = runs.config(folder, training=training, objectives=[{"kind": "cross_entropy"}], baseline=False)
    with pytest.raises(
        ValueError, match=r"^Step \d: the pivot's (weights|hidden states) .*Lower training\.learning_rate"
    ):
        pipeline.run(config)
    assert not list(config.folder.glob("train/*/model/*.safetensors"))
    assert not list(config.folder.glob("train/*/done.json"))
    assert not (config.folder / "fused").exists()


def test_a_model_file_without_numbers_is_no_result_of_a_training(folder, monkeypatch):
    def export(place, *_):
        weights = {name: weight.clone() for name, weight in load_file(place / "model.safetensors").items()}
        weights["model.norm.weight"][0] = NAN
        save_file(weights, place / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(fit, "complete_export", export)
    config = runs.config(folder, objectives=[{"kind": "cross_entropy"}], baseline=False)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: the weights model\.norm\.weight are NaN or infinite.*train again"
    ):
        pipeline.run(config)
    assert not list(config.folder.glob("train/*/done.json"))


def test_a_text_that_a_model_masks_has_no_score(folder, monkeypatch):
    example = Example(({"role": "user", "content": "number 1: "},), "the lazy dog", "d")
    _, tokenizer = masked(folder / "pivot", [])
    ids = encode(tokenizer, example.messages, example.response).input_ids
    monkeypatch.setattr(heldout, "load_model", lambda *_: masked(folder / "pivot", [ids[-2]])[0])
    with pytest.raises(
        ValueError, match=rf"{example.id} of domain d has probability 0: behind \d+ bytes of the response .* masks"
    ):
        score(ModelRef(str(folder / "pivot")), [example], [PromptFormat()], HeldoutSettings(), progress=lambda _: None)


def test_an_answer_whose_likelihood_is_none_is_not_chosen(folder):
    spoil(folder / "neox", NAN, "number")  # which stands in every prompt
    context = RunContext(runs.config(folder))
    with pytest.raises(ValueError, match=r"^source neox \(.*\): in example \w+"):
        reads._scores(context, "neox", extract.open_source(context, "neox"), [(context.train_examples[0], "a dog")])


def test_a_draft_that_breaks_is_not_written(folder, tmp_path):
    examples = [Example(({"role": "user", "content": f"number {n}: "},), runs.WORDS[n % 5], "d") for n in range(8)]
    settings = DraftSettings(max_steps=4, learning_rate=1e38, depth=2)
    with pytest.raises(
        ValueError, match=r"^Step [23]: the losses of the draft are .*, which are no numbers\. Lower learning_rate"
    ):
        train_and_measure(ModelRef(str(folder / "pivot")), DraftData(examples, 2, 64), settings, tmp_path / "draft")
    assert not list((tmp_path / "draft").glob("*.safetensors"))
