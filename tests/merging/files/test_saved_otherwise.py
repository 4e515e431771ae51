"""Models as other programs, or other versions of one, save them: what is the same model merges, what is not is named."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from fusion.merging.files.stream import merge
from fusion.merging.methods.registry import TIES, Linear, ModelStock, TaskArithmetic
from tests.architectures.tiny_configs import tiny_config
from tests.helpers.families import HEAD, WEIGHTS, edit_weights, no_output_in, save_tiny_llama, set_config

SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def save(folder, model, seed=0):
    """A model of random weights."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def without(folder, *keys):
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config_of(folder).items() if k not in keys}))


def mean(*folders):
    tensors = [load_file(folder / WEIGHTS) for folder in folders]
    return {name: sum(each[name].double() for each in tensors) / len(tensors) for name in tensors[0]}


def assert_mean(out, *folders):
    expected = mean(*folders)
    found = load_file(out / WEIGHTS)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=1e-7, rtol=1e-6)


@pytest.fixture
def pair(tmp_path):
    first = save_tiny_llama(tmp_path / "a")
    save_tiny_llama(tmp_path / "b", like=first, seed=1)
    return tmp_path / "a", tmp_path / "b"


def test_the_base_is_no_model_of_its_own_where_models_are_compared_with_it(pair, tmp_path):
    base, model = pair
    for method in (ModelStock(), TaskArithmetic()):
        with pytest.raises(ValueError, match=r"a is the base, and among the models too: .* Leave it out of models"):
            merge(base, [base, model], method, tmp_path / "out")
    assert no_output_in(tmp_path)
    merge(base, [base, model], Linear(), tmp_path / "out")
    assert_mean(tmp_path / "out", base, model)


def test_a_wrapper_before_the_name_of_a_class_is_none_of_the_architecture(pair, tmp_path):
    base, model = pair
    for folder in (base, model):
        set_config(folder, architectures=["FSDPLlamaForCausalLM"])
    merge(base, [model], Linear(), tmp_path / "out")
    assert config_of(tmp_path / "out")["architectures"] == ["LlamaForCausalLM"]
    without(model, "architectures")
    merge(base, [model], Linear(), tmp_path / "out2")
    set_config(model, architectures=["LlamaModel"])
    with pytest.raises(ValueError, match=r"architectures is \['LlamaModel'\].*--allow-different architectures takes"):
        merge(base, [model], Linear(), tmp_path / "out3")
    merge(base, [model], Linear(), tmp_path / "out3", allow_different=["architectures"])


def test_settings_of_few_bits_go_where_no_weight_is_of_few(pair, tmp_path):
    base, model = pair
    set_config(base, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    merge(base, [model], Linear(), tmp_path / "out")
    assert "quantization_config" not in config_of(tmp_path / "out")
    said = (tmp_path / "out/README.md").read_text().replace("\\_", "_")
    assert "quantization_config is left out of the result's config.json" in said


def test_a_model_of_few_bits_is_named_as_one_at_once(pair, tmp_path):
    base, model = pair
    set_config(model, quantization_config={"quant_method": "bitsandbytes"})
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(
        model, lambda t: t.update({name: torch.zeros(7, 1, dtype=torch.uint8), f"{name}.absmax": torch.ones(3)})
    )
    with pytest.raises(ValueError) as told:
        merge(base, [model], Linear(), tmp_path / "out")
    assert "b: its weights are of few bits (bitsandbytes)" in str(told.value)
    assert "Dequantize it first" in str(told.value)
    assert "allow-different" not in str(told.value)


def test_heads_are_tied_as_the_class_ties_them_where_the_configuration_is_silent(tmp_path):
    config = Gemma2Config(**SIZES, num_key_value_heads=1, head_dim=8)
    first, second = (save(tmp_path / name, Gemma2ForCausalLM(config), seed) for seed, name in enumerate("ab"))
    for folder in (first, second):
        without(folder, "tie_word_embeddings")
    merge(first, [second], Linear(), tmp_path / "out")
    assert HEAD not in load_file(tmp_path / "out" / WEIGHTS)
    edit_weights(first, lambda t: t.update({HEAD: t["model.embed_tokens.weight"].clone()}))
    edit_weights(second, lambda t: t.update({HEAD: torch.ones(40, 16)}))
    with pytest.raises(ValueError, match=r"b: lm_head.weight is not its embedding, and the base \S+ ties the two"):
        merge(first, [second], Linear(), tmp_path / "out2")


def test_layers_that_transformers_does_not_load_are_kept_or_left_out(tmp_path):
    base, model = (
        save(tmp_path / name, AutoModelForCausalLM.from_config(tiny_config("qwen3_next")), 0) for name in "ab"
    )
    further = {"mtp.fc.weight": torch.randn(16, 32), "mtp.layers.0.input_layernorm.weight": torch.ones(16)}
    edit_weights(base, lambda t: t.update(further))
    merge(base, [model], TIES(density=0.5), tmp_path / "out")
    merged = load_file(tmp_path / "out" / WEIGHTS)
    assert all(torch.equal(merged[name], tensor) for name, tensor in further.items())
    note = "mtp.fc.weight and 1 more, which transformers does not load, in the base alone: kept as it is"
    assert note in (tmp_path / "out/README.md").read_text()
    merge(model, [base], Linear(), tmp_path / "turned")
    assert not any(name.startswith("mtp") for name in load_file(tmp_path / "turned" / WEIGHTS))
    edit_weights(model, lambda t: t.update({name: 3 * tensor for name, tensor in further.items()}))
    merge(base, [base, model], Linear(), tmp_path / "both")
    assert torch.allclose(load_file(tmp_path / "both" / WEIGHTS)["mtp.fc.weight"], 2 * further["mtp.fc.weight"])
    edit_weights(model, lambda t: t.pop("model.norm.weight"))
    with pytest.raises(ValueError, match=r"b: model.norm.weight is missing"):
        merge(base, [model], Linear(), tmp_path / "out2")


def test_the_same_model_without_its_prefix_is_the_same_model(tmp_path):
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)
    first, second = (save(tmp_path / name, GPT2LMHeadModel(config), seed) for seed, name in enumerate("ab"))
    edit_weights(first, lambda t: [t.update({name.removeprefix("transformer."): t.pop(name)}) for name in list(t)])
    merge(second, [first], Linear(), tmp_path / "out")
    given = {f"transformer.{name}": tensor for name, tensor in load_file(first / WEIGHTS).items()}
    for name, tensor in load_file(tmp_path / "out" / WEIGHTS).items():
        torch.testing.assert_close(tensor, given[name])


def test_names_that_have_nothing_in_common_are_shown_of_both(pair, tmp_path):
    base, model = pair
    edit_weights(model, lambda t: [t.update({f"net.{name}": t.pop(name)}) for name in list(t)])
    with pytest.raises(
        ValueError, match=r"other names than the base's: net.lm_head.weight.*has lm_head.weight"
    ) as told:
        merge(base, [model], Linear(), tmp_path / "out")
    assert len(str(told.value).splitlines()) == 2
    assert no_output_in(tmp_path)


def test_code_beside_the_base_alone_leaves_both_to_their_class(tmp_path):
    config = Phi3Config(**SIZES, num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=2)
    base, model = (save(tmp_path / name, Phi3ForCausalLM(config), seed) for seed, name in enumerate("ab"))
    theta = config_of(base)["rope_parameters"]["rope_theta"]
    without(base, "rope_parameters")
    set_config(base, rope_theta=theta, rope_scaling=None, auto_map={"AutoConfig": "configuration_phi3.Phi3Config"})
    merge(base, [model], Linear(), tmp_path / "out")
    set_config(model, auto_map=config_of(base)["auto_map"])  # as transformers saves it, where it has read the code
    merge(base, [model], Linear(), tmp_path / "out3")
    set_config(base, twist=1)
    with pytest.raises(ValueError, match=r"twist is not stated, the base \S+ has 1"):
        merge(base, [model], Linear(), tmp_path / "out2")
    without(base, "twist")
    set_config(base, rope_theta=2 * theta)
    with pytest.raises(ValueError, match=r"rope_theta is not stated, the base \S+ has 20000.0"):
        merge(base, [model], Linear(), tmp_path / "out2")
    without(model, "auto_map")
    with pytest.raises(ValueError, match=r"rope_theta is 10000.0, the base \S+ has 20000.0"):
        merge(base, [model], Linear(), tmp_path / "out2")


def test_rows_of_tokens_are_those_of_every_kind_of_head(tmp_path):
    folders = []
    for seed, (name, size) in enumerate((("a", 40), ("b", 44))):
        config = GPTNeoXConfig(**SIZES | {"vocab_size": size})
        folders.append(save(tmp_path / name, GPTNeoXForCausalLM(config), seed))
        edit_weights(folders[-1], lambda t: t.update({"embed_out.bias": torch.ones(len(t["embed_out.weight"]))}))
    merge(folders[0], [folders[1]], Linear(), tmp_path / "out", vocabulary="pad")
    merged, model = (load_file(folder / WEIGHTS) for folder in (tmp_path / "out", folders[1]))
    assert torch.equal(merged["embed_out.weight"], model["embed_out.weight"][:40])
    assert merged["embed_out.bias"].shape == (40,)
    with pytest.raises(ValueError, match=r"embed_out.weight has shape .*--vocabulary pad lets rows of tokens differ"):
        merge(folders[0], [folders[1]], Linear(), tmp_path / "out2", allow_different=["vocab_size"])


def test_labels_in_another_order_are_no_average(tmp_path):
    folders = []
    for seed, labels in enumerate(({0: "bad", 1: "good"}, {0: "good", 1: "bad"})):
        config = BertConfig(**SIZES, id2label=labels, label2id={label: n for n, label in labels.items()})
        folders.append(save(tmp_path / f"m{seed}", BertForSequenceClassification(config), seed))
    with pytest.raises(ValueError, match=r"m1: id2label is .*'good'.*--allow-different id2label takes the base's"):
        merge(folders[0], [folders[1]], Linear(), tmp_path / "out")
    merge(folders[0], [folders[1]], Linear(), tmp_path / "out", allow_different=["id2label"])
    assert config_of(tmp_path / "out")["id2label"] == {"0": "bad", "1": "good"}
    encoders = [save(tmp_path / f"e{seed}", BertModel(BertConfig(**SIZES)), seed) for seed in range(2)]
    set_config(encoders[0], id2label={"0": "left over"})
    merge(encoders[0], [encoders[1]], Linear(), tmp_path / "out2")


def test_an_adapter_of_a_model_that_sees_finds_its_layers_in_the_file(tmp_path):
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=SIZES | {"num_key_value_heads": 1, "head_dim": 8, "model_type": "gemma3_text"},
        vision_config=vision | {"image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4, image_token_index=39,
    )  # fmt: skip
    base = save(tmp_path / "base", Gemma3ForConditionalGeneration(config))
    model = get_peft_model(Gemma3ForConditionalGeneration.from_pretrained(base), LoraConfig(target_modules=["q_proj"]))
    save(tmp_path / "adapter", model, seed=1)
    merge(base, [tmp_path / "adapter"], Linear(), tmp_path / "out")
    loaded = Gemma3ForConditionalGeneration.from_pretrained(base)
    PeftModel.from_pretrained(loaded, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "expected")
    found, expected = (load_file(tmp_path / name / WEIGHTS) for name in ("out", "expected"))
    before = load_file(base / WEIGHTS)
    assert found.keys() == expected.keys()
    assert any(not torch.equal(found[name], before[name]) for name in found)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])
