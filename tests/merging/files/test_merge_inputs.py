"""What may be merged: tied heads are understood, and every input that does not fit is refused by name, writing nothing."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import SCE, TIES, Linear, TaskArithmetic
from tests.helpers.families import (
    EMBEDDING,
    HEAD,
    WEIGHTS,
    edit_weights,
    load_tensors,
    no_output_in,
    save_tiny_llama,
    set_config,
)

# Tied output heads


def test_a_model_that_lacks_its_head_because_it_is_tied_gives_its_embedding(family, tmp_path):
    base, models = family
    edit_weights(models[0], lambda t: t.pop(HEAD))
    set_config(models[0], tie_word_embeddings=True)
    merge(base, models[:1], Linear(), tmp_path / "out")
    merged = load_tensors(tmp_path / "out")
    assert torch.equal(merged[HEAD], load_file(models[0] / WEIGHTS)[EMBEDDING])


def test_a_model_that_lacks_its_head_though_untied_is_refused(family, tmp_path):
    base, models = family
    edit_weights(models[0], lambda t: t.pop(HEAD))
    config = json.loads((models[0] / "config.json").read_text())
    for silent in (config | {"tie_word_embeddings": False}, {k: v for k, v in config.items() if k[:4] != "tie_"}):
        (models[0] / "config.json").write_text(json.dumps(silent))  # a Llama ties nothing by itself
        with pytest.raises(ValueError, match=r"m1: lm_head.weight is missing"):
            merge(base, models, Linear(), tmp_path / "out")


def test_a_tied_base_takes_a_stored_head_only_if_it_repeats_the_embedding(tmp_path):
    base = save_tiny_llama(tmp_path / "base", tied=True)
    save_tiny_llama(tmp_path / "m1", like=base, tied=True)
    assert HEAD not in load_file(tmp_path / "base" / WEIGHTS)
    edit_weights(tmp_path / "m1", lambda t: t.update({HEAD: t[EMBEDDING].clone()}))
    merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, load_file(tmp_path / "m1" / WEIGHTS)[EMBEDDING])
    edit_weights(tmp_path / "m1", lambda t: t[HEAD].add_(1))
    with pytest.raises(ValueError, match=r"m1: lm_head.weight is extra"):
        merge(tmp_path / "base", [tmp_path / "m1"], Linear(), tmp_path / "out2")


# Inputs that do not fit: refused by name, with nothing written


def lose(folder):
    edit_weights(folder, lambda t: t.pop("model.norm.weight"))


def add(folder):
    edit_weights(folder, lambda t: t.update(surplus=torch.zeros(1)))


def reshape(folder):
    edit_weights(folder, lambda t: t.update({EMBEDDING: torch.zeros(40, 16)}))


def make_nan(folder):
    edit_weights(folder, lambda t: t["model.norm.weight"].__setitem__(3, float("nan")))


def make_infinite(folder):
    edit_weights(folder, lambda t: t["model.norm.weight"].__setitem__(3, -float("inf")))


def make_whole(folder):
    edit_weights(folder, lambda t: t.update({"model.norm.weight": torch.zeros(16, dtype=torch.int64)}))


def pickle(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def adapt(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def point_nowhere(folder):
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {HEAD: "model-00001.safetensors"}}))


def point_outside(folder):
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {HEAD: "../elsewhere.safetensors"}}))


def index_wrongly(folder):
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {HEAD: "a.safetensors"}}))


def keep_both(folder):
    (folder / "model.safetensors.index.json").write_text("{}")


MODEL_ERRORS = [
    (lose, ValueError, r"m2: model.norm.weight is missing; the base \S+base has it"),
    (add, ValueError, r"m2: surplus is extra; the base \S+base lacks it"),
    (reshape, ValueError, r"m2: model.embed_tokens.weight has shape \(40, 16\), the base \S+base has \(37, 16\)"),
    (make_nan, ValueError, r"model.norm.weight in \S+m2 has 1 values that are NaN or infinite"),
    (make_infinite, ValueError, r"model.norm.weight in \S+m2 has 1 values that are NaN or infinite"),
    (make_whole, ValueError, r"m2: model.norm.weight is I64, the base \S+base has F32"),
    (pickle, ValueError, r"m2 has pickled weights only \(pytorch_model.bin\).*save_pretrained"),
    (adapt, FileNotFoundError, r"m2 has neither .* found adapter_model.safetensors"),
    (lambda folder: (folder / WEIGHTS).unlink(), FileNotFoundError, r"m2 has neither .* found no weights"),
    (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, r"m2 is not a model folder"),
    (
        shutil.rmtree,
        FileNotFoundError,
        r"There is no folder \S+m2\. Name a folder that save_pretrained wrote, or a hub id",
    ),
    (truncate, ValueError, r"m2/model.safetensors is damaged"),
    (point_nowhere, FileNotFoundError, r"names the shard model-00001.safetensors, which is not in the folder"),
    (point_outside, FileNotFoundError, r"names the shard ../elsewhere.safetensors"),
    (index_wrongly, ValueError, r"m2/model.safetensors.index.json and its shards disagree about model"),
    (keep_both, ValueError, r"m2 has both"),
    (
        lambda f: set_config(f, model_type="mistral"),
        ValueError,
        r"m2: model_type is 'mistral', the base",
    ),
    (lambda f: set_config(f, architectures=["Other"]), ValueError, r"m2: architectures is \['Other'\]"),
    (lambda f: set_config(f, num_attention_heads=4), ValueError, r"m2: num_attention_heads is 4, the base \S+ has 2"),
]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (HEAD, r"base: its head is not tied \(tie_word_embeddings: false\), and there is no lm_head.weight"),
        ("model.layers.1.", r"base: config.json has 2 layers, and 1 has no tensors"),
    ],
)
def test_a_base_without_what_its_configuration_says_is_refused(family, tmp_path, lost, message):
    base, models = family
    for folder in (base, *models):
        edit_weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith(lost)])
    with pytest.raises(ValueError, match=message):
        merge(base, models, Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


@pytest.mark.parametrize(("spoil", "error", "message"), MODEL_ERRORS)
def test_a_model_that_does_not_fit_is_named_and_nothing_is_written(family, tmp_path, spoil, error, message):
    base, models = family
    spoil(models[1])
    with pytest.raises(error, match=message):
        merge(base, models, TIES(), tmp_path / "out")
    assert no_output_in(tmp_path)


def test_a_nan_in_the_base_is_named(family, tmp_path):
    make_nan(family[0])
    with pytest.raises(ValueError, match=r"model.norm.weight in \S+base has 1 values"):
        merge(*family, TIES(), tmp_path / "out")
    assert no_output_in(tmp_path)


def test_all_mistakes_are_shown_at_once(family, tmp_path):
    base, models = family
    lose(models[0])
    reshape(models[1])
    set_config(models[2], hidden_act="relu")
    with pytest.raises(ValueError, match=r"(?s)m1: model.norm.*m2: model.embed.*m3: hidden_act"):
        merge(base, models, Linear(), tmp_path / "out")


@pytest.mark.parametrize("kind", [torch.int64, torch.bool], ids=str)
def test_whole_numbers_that_differ_are_refused(family, tmp_path, kind):
    base, models = family
    for number, folder in enumerate([base, *models]):
        edit_weights(folder, lambda t, number=number: t.update(flags=torch.tensor([1, number // 3], dtype=kind)))
    with pytest.raises(ValueError, match=r"flags in \S+m3 differs from the base"):
        merge(base, models, Linear(), tmp_path / "out")
    assert no_output_in(tmp_path)


def test_eight_bit_floats_are_refused(family, tmp_path):
    base, models = family
    for folder in (base, *models):
        edit_weights(folder, lambda t: t.update({HEAD: t[HEAD].to(torch.float8_e4m3fn)}))
    with pytest.raises(
        ValueError,
        match=r"base: its weights are of few bits, as lm_head.weight \(F8_E4M3\); only .* Dequantize it first",
    ):
        merge(base, models, Linear(), tmp_path / "out")


def test_a_result_that_overflows_the_dtype_is_refused(family, tmp_path):
    base, models = family
    edit_weights(models[0], lambda t: t[HEAD].fill_(1e6))
    with pytest.raises(ValueError, match=r"lm_head.weight overflows torch.float16 after merging; choose"):
        merge(base, models, Linear(), tmp_path / "out", dtype="float16")
    assert no_output_in(tmp_path)


def test_unknown_dtypes_wrong_counts_and_lone_selections_are_refused_before_reading(tmp_path):
    base, *models = (tmp_path / name for name in ("none", "of", "these", "exists"))
    with pytest.raises(ValueError, match=r"dtype must be one of float32, bfloat16, float16, .* got 'int8'"):
        merge(base, models, Linear(), tmp_path / "out", dtype="int8")
    with pytest.raises(ValueError, match="task_arithmetic has 2 weights for 3 models"):
        merge(base, models, TaskArithmetic(weights=[1, 1]), tmp_path / "out")
    with pytest.raises(ValueError, match="sce selects entries by their variance"):
        merge(base, models[:1], SCE(), tmp_path / "out")
    with pytest.raises(ValueError, match="at least one model"):
        merge(base, [], SCE(), tmp_path / "out")
