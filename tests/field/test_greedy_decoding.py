"""Decoding hangs on what was asked for, and on nothing that a model's generation_config says besides its ends."""

import logging

import pytest
import torch
from transformers import GenerationConfig

from fusion.data.encode import encode_prompt
from fusion.data.prompt_format import PromptFormat
from fusion.models import notices
from fusion.models.generate import GenerationSettings, eos_token_ids, generate
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion.models.neutral_generation import ignored_settings
from tests.helpers import tiny

SETTINGS = [
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram_size": 1},
    {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.5},
    {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    {"stop_strings": ["a", "e", " "]},
    {"max_length": 3},
    {"max_new_tokens": 1},
    {"min_length": 200, "min_new_tokens": 12},
    {"num_beams": 3, "length_penalty": 5.0, "early_stopping": True},
    {"num_return_sequences": 2, "num_beams": 2},
    {"forced_eos_token_id": 7},
    {"forced_bos_token_id": 7},
    {"suppress_tokens": list(range(3, 200))},
    {"begin_suppress_tokens": list(range(3, 200))},
    {"bad_words_ids": [[n] for n in range(3, 200)]},
    {"sequence_bias": [[[9], 50.0]]},
    {"exponential_decay_length_penalty": (1, 5.0)},
    {"encoder_repetition_penalty": 3.0},
    {"guidance_scale": 3.0},
    {"renormalize_logits": True, "remove_invalid_values": True},
    {"epsilon_cutoff": 0.3, "eta_cutoff": 0.3, "do_sample": True},
    {"max_time": 1e-9},
    {"token_healing": True},
    {"prompt_lookup_num_tokens": 2},
    {"watermarking_config": {"bias": 9.0, "seeding_scheme": "selfhash", "greenlist_ratio": 0.5}},
    {"use_cache": False},
    {"dola_layers": "high"},
]


@pytest.fixture(scope="module")
def model_and_prompts(tmp_path_factory):
    ref = ModelRef(str(tiny.folder("llama", tmp_path_factory.mktemp("models") / "llama", padding=0)))
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": text}]).ids for text in ("a fox", "12 + 30 is")]
    return model, tokenizer, prompts


def completions(model_and_prompts, given, **settings):
    """What the model writes where its generation_config holds `given` besides its ends."""
    model, tokenizer, prompts = model_and_prompts
    own = model.generation_config
    config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    for name, value in given.items():
        setattr(config, name, value)
    model.generation_config = config
    try:
        found = generate(
            model, tokenizer, prompts, settings=GenerationSettings(8, **settings), batch_tokens=1000,
            eos_token_id=eos_token_ids(model, tokenizer, PromptFormat()), progress=lambda _: None,
        )  # fmt: skip
        assert model.generation_config is config
        return found
    finally:
        model.generation_config = own


@pytest.mark.parametrize("given", SETTINGS, ids=lambda given: next(iter(given)))
def test_greedy_text_does_not_depend_on_the_models_generation_config(model_and_prompts, given):
    assert completions(model_and_prompts, given) == completions(model_and_prompts, {})


@pytest.mark.parametrize(
    "given", [{"top_k": 1}, {"temperature": 0.01}, {"top_p": 0.01}, {"repetition_penalty": 3.0}], ids=str
)
def test_draws_follow_the_temperature_and_top_p_of_the_call_alone(model_and_prompts, given):
    asked = {"temperature": 1.0, "num_return_sequences": 4}
    drawn = completions(model_and_prompts, given | {"do_sample": True}, **asked)
    assert drawn == completions(model_and_prompts, {}, **asked)
    assert len({each.text for group in drawn for each in group}) == 8


def test_more_than_the_fifty_likeliest_tokens_are_drawn(model_and_prompts):
    group, _ = completions(model_and_prompts, {}, temperature=100.0, num_return_sequences=200)
    assert len({each.text[:3] for each in group}) > 60


def test_ends_are_kept(model_and_prompts):
    model, tokenizer, prompts = model_and_prompts
    ids = torch.tensor([prompts[0]])
    third = model.generate(ids, max_new_tokens=3, do_sample=False)[0, -1].item()
    [[one], _] = completions(model_and_prompts, {"eos_token_id": [third, tokenizer.eos_token_id]})
    assert one.ended


def test_what_is_not_used_is_said_once(model_and_prompts, caplog):
    with caplog.at_level(logging.WARNING, logger=notices.__name__):
        for _ in range(2):
            completions(model_and_prompts, {"repetition_penalty": 1.25, "max_new_tokens": 5, "do_sample": False})
    [record] = [record for record in caplog.records if "1.25" in record.message]
    assert record.message.endswith("these settings of its generation_config are not used: repetition_penalty 1.25.")


def test_nothing_is_said_of_what_changes_no_text():
    assert (
        ignored_settings(GenerationConfig(eos_token_id=[1, 2], pad_token_id=0, max_new_tokens=9, do_sample=False)) == {}
    )


def test_an_answer_ends_before_the_first_text_at_which_answers_end(model_and_prompts):
    model, tokenizer, prompts = model_and_prompts
    how = {"settings": GenerationSettings(24), "eos_token_id": [], "batch_tokens": 4096, "progress": lambda _: None}
    whole = [completion.text for [completion] in generate(model, tokenizer, prompts, **how)]
    stop = [text[len(text) // 2 : len(text) // 2 + 2] for text in whole]
    for text, [completion] in zip(whole, generate(model, tokenizer, prompts, stop=stop, **how), strict=True):
        assert completion.ended
        assert text.startswith(completion.text)
        assert completion.text == text[: min(text.find(each) for each in stop if each in text)]
        assert not any(each in completion.text for each in stop)
