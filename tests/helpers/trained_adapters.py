"""Small models of three families, and adapters of them as peft trains and saves them."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SIZES = {"vocab_size": 37, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
ADAPTER = "adapter_model.safetensors"


def save_base(folder, family="llama", dtype=torch.float64):
    torch.manual_seed(0)
    if family == "gpt2":
        ids = {"bos_token_id": 0, "eos_token_id": 1}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_positions=16, n_embd=16, n_layer=2, n_head=2, **ids))
    elif family == "qwen2":  # ties its head, and has biases
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES, **HEADS, tie_word_embeddings=True))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=False))
    torch.manual_seed(3)
    for parameter in model.parameters():  # biases begin as zeros
        parameter.data.add_(0.02 * torch.randn(parameter.shape))
    model.to(dtype).save_pretrained(folder)


def load_base(folder, new_vocabulary=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    if new_vocabulary:
        model.resize_token_embeddings(new_vocabulary, mean_resizing=False)
    return model


def lora(**settings):
    return LoraConfig(**({"task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 7} | settings))


def train(model, config):
    """A peft model after something like a training: all that is trained has changed, in place as optimizers do."""
    model = get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape).to(parameter.dtype))
    return model.eval()


def logits(model):
    return model(torch.arange(10)[None]).logits


def assert_equal_to(merged, expected, *, names, rows=None, tolerance=1e-12):
    assert set(merged) == set(names)
    for name in merged:
        torch.testing.assert_close(merged[name], expected[name][:rows], rtol=tolerance, atol=tolerance, msg=name)
