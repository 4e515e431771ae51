"""Whole runs of models that write more than a generation prompt before an answer, and of sources that know no turns."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fusion import pipeline
from fusion.data.encode import encode_prompt
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format
from fusion.stages.respond import answers
from fusion.stages.train import pivot_ends
from tests.field.chat_templates import FAMILIES
from tests.helpers import runs, tiny

SHOTS = "number 8: the lazy dog\nnumber 9: a fox\n"


def chat_model(folder, family, seed=0):
    """A tiny model whose tokenizer is of this family."""
    tokenizer = FAMILIES[family].tokenizer()
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), max_position_embeddings=256, **tiny.SHAPES["llama"]
    )
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A finished run that began on another day."""
    folder = tmp_path_factory.mktemp("channels")
    sources = [
        {"name": "base", "path": str(runs.models(folder)["neox"]), "template": "plain", "shots": SHOTS, "answer_prefix": " =",
         "stop": ["\n"]},
        {"name": "thinks", "path": chat_model(folder / "thinks", "empty thought, as Qwen3", 1),
         "chat_template_kwargs": {"enable_thinking": False}},
    ]  # fmt: skip
    raw = runs.raw(folder)
    for name in ("train", "heldout"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().split("\n")]
        flat = [
            row | {"response": row["response"].replace("\n", " ")} for row in rows
        ]  # a line break ends an answer here
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in flat))
    pivot = {"path": chat_model(folder / "pivot-channels", "channels, as gpt-oss")}
    data = {part: [{"path": str(folder / f"{part}.jsonl"), "domain": "d0"}] for part in ("train", "heldout")}
    raw |= {"pivot": pivot, "sources": sources, "data": data}
    config = runs.loading.parse(raw, "test")
    config.folder.mkdir(parents=True)
    (config.folder / "run.json").write_text(json.dumps({"date": "2020-01-02"}))
    pipeline.run(config, "evaluate")
    return RunContext(config)


@pytest.mark.parametrize("name", ["pivot", "base", "thinks"])
def test_training_reading_answering_and_evaluation_have_one_prompt(context, name):
    asked = answers.encoded_prompts(context, name, {e.prompt_id: e for e in context.original_examples})
    for example, text in zip(context.extracted_examples, context.encoded(name), strict=True):
        form = prompt_format(context, name, example)
        prompt = encode_prompt(context.tokenizers[name], example.messages, prompt_format=form)
        assert text.input_ids[: text.start] == prompt.ids == asked[example.prompt_id].ids


def test_the_prompts_are_those_of_the_first_day(context):
    shown = context.tokenizers["pivot"].decode(context.encoded("pivot")[0].input_ids)
    assert "Today: 2020-01-02" in shown
    assert shown.count("<|channel|>final<|message|>") == 1
    assert context.record.read()["date"] == "2020-01-02"


def test_a_source_reads_its_worked_examples_and_its_end(context):
    tokenizer, text, example = context.tokenizers["base"], context.encoded("base")[0], context.extracted_examples[0]
    shown = tokenizer.decode(text.input_ids)
    assert shown.startswith(f"{SHOTS}{example.prompt} =")
    assert shown.endswith(example.response + "\n")


def test_plain_generation_from_the_fused_folder_begins_where_training_did(context):
    tokenizer = AutoTokenizer.from_pretrained(context.config.folder / "fused")
    example = context.train_examples[0]
    ids = tokenizer.apply_chat_template(list(example.messages), add_generation_prompt=True, return_dict=False)
    today = [context.tokenizers["pivot"], dataclasses.replace(prompt_format(context, "pivot", example), date=None)]
    assert ids == encode_prompt(today[0], example.messages, prompt_format=today[1]).ids
    assert tokenizer.decode(ids).endswith("<|start|>assistant<|channel|>final<|message|>")


def test_a_run_with_other_prompts_is_another_run(context):
    changed = context.config.model_copy(
        update={
            "sources": [
                s.model_copy(update={"shots": "other\n"}) if s.name == "base" else s for s in context.config.sources
            ]
        }
    )
    with pytest.raises(ValueError, match=r"prompts"):
        pipeline.extract(RunContext(changed))


def test_the_weights_are_those_of_a_run_that_went_on_the_next_day(context):
    weights = load_file(context.config.folder / "fused" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    assert pipeline.extract(RunContext(context.config))  # nothing is refused: the date is the recorded one


def test_an_end_of_the_pivots_own_is_exported_or_refused(context):
    def ending(stop):
        return RunContext(
            context.config.model_copy(update={"pivot": context.config.pivot.model_copy(update={"stop": [stop]})})
        )

    assert context.tokenizers["pivot"].convert_tokens_to_ids("Ċ") in pivot_ends(ending("\n"))
    with pytest.raises(ValueError, match=r"pivot\.stop: 'zqzq' takes several tokens"):
        pivot_ends(ending("zqzq"))
