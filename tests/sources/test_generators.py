"""Backends that answer prompts by themselves, against each other and against the model asked token by token."""

import dataclasses
import sys
from functools import partial

import pytest
import torch

from fusion.data.encode import encode_prompt
from fusion.data.prompt_format import PromptFormat
from fusion.models.generate import Completion, GenerationSettings, eos_token_ids, generate
from fusion.sources import VLLM, Imported, OpenAI, Similarity, Transformers
from tests.helpers import serving

GREEDY = GenerationSettings(max_new_tokens=6)
DRAWN = GenerationSettings(max_new_tokens=6, temperature=1.0, num_return_sequences=3, seed=5)


@pytest.fixture(scope="module")
def prompts(tiny_source):
    _, wanted, _, _ = tiny_source
    return [
        encode_prompt(wanted.tokenizer, [{"role": "user", "content": f"number {i} " * (i + 1)}]).ids for i in range(4)
    ]


def transformers(tiny_source):
    return Transformers().open_generator(tiny_source[1])


@pytest.fixture(scope="module")
def greedy(tiny_source, prompts):
    """Text and end of each prompt's likeliest continuation, by hand."""
    source = transformers(tiny_source)
    found = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(GREEDY.max_new_tokens):
            ids.append(int(source.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in source.eos_token_ids:
                break
        text = source.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
        found.append([Completion(text, ids[-1] in source.eos_token_ids, tuple(ids[len(prompt) :]))])
    return found


def texts(found):
    """Completions without their ids, which no server tells."""
    return [[one._replace(ids=()) for one in each] for each in found]


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_greedy_answers_are_the_models_own(tiny_source, prompts, greedy, batch_tokens):
    source, heard = transformers(tiny_source), []
    found = generate(
        source.model, source.tokenizer, prompts, settings=GREEDY, eos_token_id=source.eos_token_ids,
        batch_tokens=batch_tokens, progress=heard.append,
    )  # fmt: skip
    assert found == greedy
    assert sum(heard) == len(prompts)


def test_a_server_and_vllm_write_what_transformers_does(tiny_source, prompts, greedy, monkeypatch):
    folder, wanted, _, _ = tiny_source
    heard = []
    with serving.serve(serving.Server(folder)) as url:
        assert OpenAI(url=url, model="tiny").open_generator(wanted).generate(prompts, GREEDY, heard.append) == texts(
            greedy
        )
        as_text = OpenAI(url=url, model="tiny", prompt="text").open_generator(wanted)
        assert as_text.generate(prompts, GREEDY) == texts(greedy)
    monkeypatch.setitem(sys.modules, "vllm", serving.vllm_module())
    assert VLLM().open_generator(wanted).generate(prompts, GREEDY, heard.append) == texts(greedy)
    assert sum(heard) == 2 * len(prompts)


def test_an_answer_stops_at_the_end_of_a_turn_and_says_so(tiny_source, prompts):
    source, ignore = transformers(tiny_source), lambda _: None
    run = partial(
        generate, source.model, source.tokenizer, prompts, settings=GREEDY, batch_tokens=1000, progress=ignore
    )
    first = run(eos_token_id=[])
    assert not any(answer.ended for [answer] in first)
    ids = torch.tensor([prompts[0]])
    out = source.model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)[
        0, ids.shape[1] :
    ]
    third = int(out[2])
    [[answer], *_] = run(eos_token_id=[third])
    assert answer.ended
    at = out.tolist().index(third)
    assert source.tokenizer.decode(out[:at]) in answer.text
    assert len(answer.text) < len(first[0][0].text)


def test_draws_follow_the_seed_and_the_prompts_and_leave_torchs_generator_alone(tiny_source, prompts):
    source = transformers(tiny_source)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = source.generate(prompts, DRAWN)
    assert torch.equal(before, torch.get_rng_state())
    assert all(len(each) == 3 for each in one)
    assert len({answer.text for each in one for answer in each}) > 6
    assert one == source.generate(prompts, DRAWN)
    other = GenerationSettings(max_new_tokens=6, temperature=1.0, num_return_sequences=3, seed=6)
    assert one != source.generate(prompts, other)
    assert DRAWN.seed_for(prompts) != DRAWN.seed_for(prompts[:2]) != DRAWN.seed_for(prompts[2:])


def test_a_cold_draw_is_the_likeliest(tiny_source, prompts, greedy):
    cold = GenerationSettings(max_new_tokens=6, temperature=1e-4, num_return_sequences=2)
    for found, [expected] in zip(transformers(tiny_source).generate(prompts, cold), greedy, strict=True):
        assert found == [expected, expected]
    narrow = GenerationSettings(max_new_tokens=6, temperature=1.0, top_p=1e-6)
    assert transformers(tiny_source).generate(prompts, narrow) == greedy


def test_a_server_and_vllm_are_asked_for_as_many_samples_each_prompt_with_a_seed_of_its_own(
    tiny_source, prompts, monkeypatch
):
    folder, wanted, _, _ = tiny_source
    server = serving.Server(folder)
    with serving.serve(server) as url:
        found = OpenAI(url=url, model="tiny").open_generator(wanted).generate(prompts, DRAWN)
    assert [len(each) for each in found] == [3] * 4
    assert len({seen["seed"] for seen in server.seen}) == 12
    assert all((seen["temperature"], seen["top_p"], seen["max_tokens"]) == (1.0, 1.0, 6) for seen in server.seen)
    assert all("n" not in seen for seen in server.seen)  # some servers take it and write one answer
    assert len({answer.text for each in found for answer in each}) > 6
    monkeypatch.setitem(sys.modules, "vllm", serving.vllm_module())
    assert [len(each) for each in VLLM().open_generator(wanted).generate(prompts, DRAWN)] == [3] * 4


@pytest.mark.parametrize(("kind", "settings"), [
    ("vllm", {}),
    ("llama_cpp_python", {"prompt": "text"}),
    ("transformers_serve", {"prompt": "text", "sampling_fields": "openai"}),
])  # fmt: skip
def test_a_penalty_that_a_server_has_by_default_is_turned_off(tiny_source, prompts, greedy, kind, settings):
    folder, wanted, _, _ = tiny_source
    with serving.serve(serving.Server(folder, kind=kind, penalises=True)) as url:
        assert OpenAI(url=url, model="tiny", **settings).open_generator(wanted).generate(prompts, GREEDY) == texts(
            greedy
        )


def test_a_server_is_told_where_answers_end_by_text_and_by_id_and_is_cut_there_in_any_case(
    tiny_source, prompts, greedy
):
    folder, wanted, _, _ = tiny_source
    end, [[first], *_] = wanted.tokenizer.eos_token, greedy
    wanted = dataclasses.replace(wanted, prompt_format=PromptFormat(stop=(first.text[2], 5)))
    server = serving.Server(folder)
    with serving.serve(server) as url:
        [[found], *_] = OpenAI(url=url, model="tiny").open_generator(wanted).generate(prompts, GREEDY)
    assert set(server.seen[0]["stop"]) == {first.text[2], end, wanted.tokenizer.decode([5])}
    assert set(server.seen[0]["stop_token_ids"]) == {5, wanted.tokenizer.eos_token_id}
    assert found == Completion(first.text.partition(first.text[2])[0], True)


def test_a_server_that_refuses_fields_names_the_way_out(tiny_source, prompts):
    folder, wanted, _, _ = tiny_source
    with serving.serve(serving.Server(folder, kind="transformers_serve")) as url:
        writer = OpenAI(url=url, model="tiny", prompt="text").open_generator(wanted)
        with pytest.raises(ValueError, match=r"Unexpected fields .* Set backend.sampling_fields to openai"):
            writer.generate(prompts, GREEDY)


def test_vllm_is_told_that_all_penalties_and_filters_are_off(tiny_source, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", serving.vllm_module())
    writer = dataclasses.replace(VLLM().open_generator(tiny_source[1]), sampling_params_class=dict)
    told = writer._sampling_params(GREEDY, [1])
    assert [told[name] for name in ("repetition_penalty", "presence_penalty", "frequency_penalty")] == [1.0, 0.0, 0.0]
    assert [told[name] for name in ("top_k", "min_p", "top_p")] == [0, 0.0, 1.0]


@pytest.mark.parametrize("samples", [True, False])
def test_a_server_that_does_not_sample_is_noticed(tiny_source, prompts, monkeypatch, capsys, samples):
    def cold(model, tokenizer, ids, n, most, stop, temperature, seed):
        return continued(model, tokenizer, ids, n, most, stop, temperature if samples else 0, seed)

    continued = serving.continued
    monkeypatch.setattr(serving, "continued", cold)
    with serving.serve(serving.Server(tiny_source[0])) as url:
        OpenAI(url=url, model="tiny").open_generator(tiny_source[1]).generate(prompts * 2, DRAWN)
    assert ("Does the server sample?" in " ".join(capsys.readouterr().out.split())) != samples


def test_ends_are_those_of_the_settings_and_of_the_template(tiny_source):
    source = transformers(tiny_source)
    own = source.model.generation_config.eos_token_id
    assert eos_token_ids(source.model, source.tokenizer, PromptFormat("plain")) == [own] == source.eos_token_ids


@pytest.mark.parametrize("backend", [Imported(), Similarity()])
def test_a_backend_that_reads_only_says_so(tiny_source, backend):
    assert not backend.can_generate
    with pytest.raises(ValueError, match=f"backend {backend.kind} gives rows of given text and generates none"):
        backend.open_generator(tiny_source[1])
