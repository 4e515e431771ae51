"""What a run exports is what it measured: fused/ ends where answers ended in training, and is else the pivot's folder."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion.config import loading
from fusion.data.encode import encode_prompt
from fusion.data.prompt_format import PromptFormat
from fusion.models.generate import GenerationSettings, eos_token_ids, generate
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion.stages import merge, train
from fusion.stages.context import RunContext
from tests.helpers import runs, tiny
from tests.helpers.families import set_config
from tests.helpers.tiny_tokenizers import byte_level

GENERATION = {
    "eos_token_id": 0,
    "temperature": 0.6,
    "top_p": 0.9,
    "max_new_tokens": 40,
    "transformers_version": "4.40.0",
}
"""Sampling settings without do_sample, as published models have them; transformers refuses to save these."""
OTHER_FILES = {
    "LICENSE": "of the pivot", "NOTICE.txt": "of the pivot", "preprocessor_config.json": "{}", "tokenizer.model": "pieces",
    "additional_chat_templates/tools.jinja": "tools", "modeling_mine.py": "raise SystemError",
}  # fmt: skip
NOT_COPIED = {"README.md": "of the pivot", "optimizer.bin": "x", "scheduler.pt": "x", "old.safetensors": "x"}
PLACES = ["fused", "train/unified/model", "train/pairwise/qwen/model", "train/pairwise/merged/model"]
TEMPLATE = PromptFormat()


def make_pivot(folder):
    """A base model: its eos is <|endoftext|>, its chat template ends turns with <|im_end|>, and it has no padding token."""
    tokenizer = byte_level()
    tiny.model("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    set_config(
        folder,
        eos_token_id=0,
        torch_dtype="float32",
        rope_theta=10000.0,
        of_the_pivot="kept",
        auto_map={"A": "modeling_mine.A"},
    )
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    for name, text in (OTHER_FILES | NOT_COPIED).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module", params=["whole", "adapter"])
def run(tmp_path_factory, request):
    """Trainings in which the pivot learns to say yes, merged and fused; the run's folder and the pivot's."""
    folder = tmp_path_factory.mktemp("export")
    pivot = make_pivot(folder / "chat")
    raw = runs.raw(folder, strategies=["unified", "pairwise"], pivot={"path": str(pivot)})
    raw["sources"] = raw["sources"][1:]
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().split("\n")]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row | {"response": "yes"}) for row in rows))
    raw["training"] |= {"max_steps": 40, "save_strategy": "no", "gradient_checkpointing": True}
    if request.param == "adapter":
        raw |= {"adapter": {"kind": "lora", "r": 16}}
    context = RunContext(loading.parse(raw, "test"))
    for name in ("unified", "pairwise/qwen"):
        train.train_one(context, name, [], [])
    merge.merge_all(context)
    merge.fuse_chosen(context)
    return context.config.folder, pivot


def plain_answers(folder, prompts):
    """What plain transformers writes: no argument that says where to stop."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for prompt in prompts:
        out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)[0, len(prompt) :]
        yield out.tolist(), tokenizer.decode(out, skip_special_tokens=True)


@pytest.mark.parametrize("place", PLACES)
def test_plain_generate_stops_where_our_own_writer_stops(run, place):
    folder, ref = run[0] / place, ModelRef(str(run[0] / place))
    model, tokenizer = load_model(ref), load_tokenizer(ref)
    turns = [[{"role": "user", "content": f"number {i}: "}] for i in (1, 101)]
    prompts = [encode_prompt(tokenizer, turn).ids for turn in turns]
    ends = eos_token_ids(model, tokenizer, TEMPLATE)
    ours = generate(
        model,
        tokenizer,
        prompts,
        settings=GenerationSettings(12),
        eos_token_id=ends,
        batch_tokens=100,
        progress=lambda _: None,
    )
    plain = list(plain_answers(folder, prompts))
    assert [text for _, text in plain] == [answer.text for [answer] in ours] == ["yes", "yes"]
    assert all(ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>") for ids, _ in plain)


@pytest.mark.parametrize("place", PLACES)
def test_all_but_weights_and_ends_is_the_pivots(run, place):
    folder, pivot = run[0] / place, run[1]
    end = byte_level().convert_tokens_to_ids("<|im_end|>")
    assert read(folder / "generation_config.json") == GENERATION | {"eos_token_id": [0, end]}
    assert read(folder / "config.json") == read(pivot / "config.json")
    copied = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", *OTHER_FILES}
    assert {name for name in copied if (folder / name).read_bytes() != (pivot / name).read_bytes()} == set()
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    ours = {"README.md", "fusion.json", "training_args.bin", "merge.json", "recipe.yaml"}
    assert found - ours == copied | {"config.json", "generation_config.json", "model.safetensors"}
    assert not (folder / "README.md").exists() or (folder / "README.md").read_text() != NOT_COPIED["README.md"]
    assert AutoTokenizer.from_pretrained(folder).pad_token is None


def read(file):
    return json.loads(file.read_text())
