"""Architectures of transformers through the whole chain of a run, with logits as large as real ones; all of them if slow."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from fusion.models.head import Head, module_below_head
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion.training.adapter import load_pivot
from tests.architectures import __main__ as command
from tests.architectures import chain
from tests.architectures.reasons import UNEXPLAINED, explain
from tests.architectures.tiny_configs import VOCABULARY, tiny_config
from tests.helpers import tiny

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
KINDS = {
    "falcon_h1": ("bfloat16", False), "gemma2": ("bfloat16", True), "gpt2": ("mixed", True), "granite": ("mixed", True),
    "llama": ("bfloat16", True), "llama4_text": ("mixed", True), "mamba": ("bfloat16", False), "mamba2": ("mixed", False),
    "mixtral": ("mixed", True), "opt": ("mixed", False), "qwen3_moe": ("bfloat16", True), "recurrent_gemma": ("mixed", False),
}  # fmt: skip
"""A few of different kinds: a precision to try besides float32, and whether they keep packed texts apart."""
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe")


@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_is_read_trained_saved_and_loaded_again(kind, tmp_path):
    precision, packs = KINDS[kind]
    settings = {"output_router_logits": True} if kind in EXPERTS else {}
    outcomes = chain.run_chain(kind, tmp_path, ["float32", precision], **settings).outcomes
    assert outcomes == {"float32": "yes", precision: "yes", "packing": "yes" if packs else "no"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_table_in_the_docs_is_what_the_command_makes():
    written = command.table_in(PAGE)
    if f"transformers {transformers.__version__}," not in written:
        pytest.skip(f"docs/architectures.md is of another release than transformers {transformers.__version__}")
    made = command.markdown(command.results(chain.all_kinds()))
    assert UNEXPLAINED not in made
    assert made == written


def test_a_reason_that_nobody_has_put_into_words_is_marked_so():
    assert explain(RuntimeError("the moon is full")).startswith(f"{UNEXPLAINED}RuntimeError: the moon is full")


def test_a_row_says_for_which_precisions_a_reason_holds():
    outcomes = dict.fromkeys(chain.PRECISIONS, "yes") | {"packing": "no", "mixed": "mixes types"}
    assert (
        command._row(chain.ChainResult("x", "X", outcomes)) == "| `x` | X | yes | yes | no | no | mixed: mixes types |"
    )
    all_alike = dict.fromkeys(outcomes, "needs images")
    assert command._row(chain.ChainResult("x", "X", all_alike)) == "| `x` | X | no | no | no |  | needs images |"


def test_the_table_is_written_between_its_marks_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- architectures -->\nold\n<!-- end -->\nafter\n")
    command.write(page, "new\n")
    assert page.read_text() == "before\n<!-- architectures -->\nnew\n<!-- end -->\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="no place for the table"):
        command.write(page, "new\n")


def test_the_layers_of_every_kind_that_a_configuration_has_are_in_the_tiny_one():
    assert tiny_config("gemma3_text").layer_types == ["sliding_attention", "full_attention"]
    assert sorted(set(tiny_config("qwen3_next").layer_types)) == ["full_attention", "linear_attention"]


def build(kind, **settings):
    torch.manual_seed(0)
    config = tiny_config(kind)
    for name, value in settings.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model


def own_router_loss(model, texts):
    """The auxiliary loss as the model adds it to its own loss, which it then has with the outputs of routers and without."""
    longest = max(len(text.input_ids) for text in texts)
    ids = torch.tensor([text.input_ids + [0] * (longest - len(text.input_ids)) for text in texts])
    mask = torch.tensor([[1] * len(text.input_ids) + [0] * (longest - len(text.input_ids)) for text in texts])
    losses = [
        model(input_ids=ids, attention_mask=mask, labels=ids, output_router_logits=routers).loss
        for routers in (True, False)
    ]
    return (losses[0] - losses[1]).item()


@pytest.mark.parametrize("kind", EXPERTS)
def test_the_load_balancing_loss_is_the_models_own_averaged_over_accumulated_batches(kind, tmp_path):
    chain.save_tiny_model(kind, tmp_path / "model", output_router_logits=True, router_aux_loss_coef=0.5)
    ref = ModelRef(str(tmp_path / "model"))
    tokenizer, model = load_tokenizer(ref), load_model(ref)
    texts = chain.encode_texts(tokenizer)
    expected = [own_router_loss(model, texts[:2]), own_router_loss(model, texts[2:])]
    assert abs(expected[0] - expected[1]) > 1e-3
    in_order = {"train_sampling_strategy": "sequential"}
    log = chain.train_two_steps(ref, tokenizer, texts, tmp_path / "trained", "float32", in_order)
    assert log[0]["loss/router"] == pytest.approx(sum(expected) / 2, rel=1e-3)
    assert log[0]["loss"] == pytest.approx(log[0]["loss/cross_entropy"] + log[0]["loss/router"], rel=1e-5)


def test_a_mixture_of_experts_that_returns_no_routers_trains_without_their_loss(tmp_path):
    chain.save_tiny_model("mixtral", tmp_path / "model")
    ref = ModelRef(str(tmp_path / "model"))
    tokenizer = load_tokenizer(ref)
    texts = chain.encode_texts(tokenizer)
    assert "loss/router" not in chain.train_two_steps(ref, tokenizer, texts, tmp_path / "trained", "float32", {})[0]


BELOW = {"gpt2": "transformer", "llama4_text": "model", "mamba": "backbone", "opt": "model.decoder"}


@pytest.mark.parametrize("kind", BELOW)
def test_what_is_compiled_is_what_the_model_calls(kind):
    model = build(kind)
    assert module_below_head(model) is model.get_submodule(BELOW[kind])


BESIDE_THE_LAYER = {
    "cohere2_moe": (0.25, None), "falcon_h1": (0.5, None), "hyperclovax": (4.0, None), "inkling_text": (1.0, None),
    "minicpm3": (1.0, None), "granitemoe": (0.25, None), "recurrent_gemma": (1.0, 30.0), "nanochat": (1.0, 30.0),
    "vaultgemma": (1.0, 30.0), "xlstm": (1.0, 30.0), "dory": (1.0, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", BESIDE_THE_LAYER)
def test_scales_and_soft_caps_are_those_of_the_architecture(kind):
    model = build(kind)
    head = Head.from_model(model, 300)
    assert (head.scale, head.softcap) == BESIDE_THE_LAYER[kind]
    head.check_against_model(model)


@pytest.mark.parametrize("kind", [k for k, found in BESIDE_THE_LAYER.items() if found != (1.0, None)])
def test_a_scale_or_soft_cap_that_is_forgotten_is_refused(kind):
    model = build(kind)
    plain = dataclasses.replace(Head.from_model(model, 300), scale=1.0, softcap=None)
    with pytest.raises(ValueError, match="besides a scale and soft-capping"):
        plain.check_against_model(model)


def test_a_head_ends_where_the_model_cuts_its_logits():
    model = build("inkling_text", unpadded_vocab_size=440)
    head = Head.from_model(model, VOCABULARY)
    assert head.vocabulary == 440
    head.check_against_model(model)


BOTH_WAYS = {"bert": {"is_decoder": False}, "cpmant": {}, "xlm": {}, "xlnet": {}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", BOTH_WAYS)
def test_a_model_that_sees_what_it_is_to_predict_is_refused(kind, dtype):
    if (kind, dtype) == ("xlnet", torch.bfloat16):
        pytest.skip("transformers cannot run it in bfloat16")
    model = build(kind, **BOTH_WAYS[kind]).to(dtype)
    with pytest.raises(ValueError, match="no causal language model and would see what it is to predict"):
        Head.from_model(model, 300).check_against_model(model)


def test_a_model_that_no_token_ids_can_run_is_refused_in_words():
    model = build("gemma4_assistant")
    with pytest.raises(ValueError, match="cannot be run with token ids alone.*shared_kv_states"):
        Head.from_model(model, 300).check_against_model(model)


def test_a_precision_that_the_architecture_cannot_run_in_is_refused_in_words():
    model = build("dbrx")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="alone in this precision.*index_add_"):
        Head.from_model(model, 300).check_against_model(model)


def test_a_head_that_is_called_for_a_few_positions_at_a_time_is_refused():
    model = build("reformer", chunk_size_lm_head=1)
    with pytest.raises(ValueError, match="its output layer gives"):
        Head.from_model(model, 300).check_against_model(model)


def test_what_a_model_does_to_its_logits_in_place_is_seen():
    model = tiny.model("llama")
    forward = model.forward

    def scaled(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits *= 0.5
        return outputs

    model.forward = scaled
    with pytest.raises(ValueError, match="besides a scale and soft-capping"):
        Head.from_model(model, 300).check_against_model(model)


def test_a_model_that_hides_some_ids_is_refused():
    model = tiny.model("llama")
    forward = model.forward

    def without_images(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[..., 100:120] = torch.finfo(outputs.logits.dtype).min
        return outputs

    model.forward = without_images
    with pytest.raises(ValueError, match="sets the logits of some ids to the smallest number"):
        Head.from_model(model, 300).check_against_model(model)


@pytest.mark.parametrize("precision", chain.PRECISIONS)
def test_a_projection_in_front_of_the_output_layer_counts(precision, tmp_path):
    """As in OPT-350m, whose projection hands 16 bits to a layer of 32 in mixed precision."""
    settings = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    assert chain.run_chain("opt", tmp_path, [precision], **settings).outcomes[precision] == "yes"


def test_a_library_that_an_architecture_needs_is_named(monkeypatch, tmp_path):
    def needs_timm(**_):
        raise ImportError(
            "\nTimmWrapperModel requires the timm library but it was not found. You can install it with pip."
        )

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", needs_timm)
    with pytest.raises(ValueError, match="Cannot load the weights of .*requires the timm library"):
        load_model(ModelRef(str(tiny.folder("llama", tmp_path))))


def test_a_model_that_could_not_be_loaded_again_is_a_source_and_not_trained(tmp_path):
    """Emu3's text model is saved under a configuration of its own, which AutoModelForCausalLM does not know."""
    chain.save_tiny_model("emu3", tmp_path)
    load_model(ModelRef(str(tmp_path)))
    with pytest.raises(ValueError, match="Emu3ForCausalLM.* could not load it again"):
        load_pivot(ModelRef(str(tmp_path)), "float32", "cpu", None)
