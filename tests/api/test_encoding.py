"""How `extract` and `FusionCollator` write prompts, and what they say of texts that a model cannot read, as a run says it."""

import datetime
import json

import pytest
import torch
import transformers.utils.chat_template_utils
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import fusion
from fusion.api.encoding import prompt_format_of
from fusion.objectives import ForwardKL
from tests.helpers import tiny

ROWS = [{"prompt": f"how much is {a} + 1?", "response": f"it is {a + 1}"} for a in (1, 20)]
LONG = [{"prompt": "say", "response": "the lazy dog jumps " * 40}]
DATED = (
    "{{ opening | default('') }}"
    "{{ strftime_now('%d %b %Y') }}\\n{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoding")
    for name, kind in (("pivot", "llama"), ("source", "gpt_neox"), ("dated", "qwen2")):
        tiny.folder(kind, folder / name, padding=0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "dated")
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder / "dated")
    short = AutoConfig.for_model(
        "gpt2", vocab_size=len(AutoTokenizer.from_pretrained(folder / "source")), n_embd=16, n_layer=1, n_head=2, n_positions=64
    )  # fmt: skip
    AutoModelForCausalLM.from_config(short).save_pretrained(folder / "short")
    AutoTokenizer.from_pretrained(folder / "source").save_pretrained(folder / "short")
    return folder


@pytest.fixture
def on(monkeypatch):
    """Sets what day it is, for templates and for caches."""

    def of(day):
        moment = datetime.datetime.fromisoformat(day)

        class Moment(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return moment

        class Day(datetime.date):
            @classmethod
            def today(cls):
                return moment.date()

        monkeypatch.setattr(transformers.utils.chat_template_utils, "datetime", Moment)
        monkeypatch.setattr("fusion.api.reading.datetime.date", Day)

    return of


def prompt_of(collator, folder):
    text = collator.texts[0]
    return AutoTokenizer.from_pretrained(folder).decode(text.input_ids[: text.start])


def test_a_cache_of_yesterday_is_gone_on_with_and_its_date_is_written(place, tmp_path, on):
    on("2026-01-01")
    first = fusion.extract(place / "dated", ROWS, top_k=3, folder=tmp_path / "cache")
    given = ROWS, {"one": first.folder}, {"one": place / "dated"}
    before = fusion.FusionCollator(place / "dated", *given)
    on("2026-02-03")
    again = fusion.extract(place / "dated", ROWS, top_k=3, folder=tmp_path / "cache")
    assert again.key == first.key
    assert again.key["date"] == "2026-01-01"
    after = fusion.FusionCollator(place / "dated", *given)
    assert [text.input_ids for text in after.texts] == [text.input_ids for text in before.texts]
    today = fusion.extract(place / "dated", ROWS, top_k=3)
    assert today.key["date"] == "2026-02-03"
    assert today.key["prompts"] != first.key["prompts"]


def test_a_cache_of_before_which_keeps_no_date_is_gone_on_with(place, tmp_path):
    folder = fusion.extract(place / "source", ROWS, top_k=3, folder=tmp_path / "cache").folder
    key = json.loads((folder / "key.json").read_text())
    del key["date"]
    (folder / "key.json").write_text(json.dumps(key))
    assert len(fusion.extract(place / "source", ROWS, top_k=3, folder=folder)) > 0


def test_what_stands_before_answers_is_written_and_another_cache(place, tmp_path):
    cache = fusion.extract(place / "dated", ROWS, top_k=3, folder=tmp_path, chat_template_kwargs={"opening": "now: "})
    with pytest.raises(ValueError, match="holds rows of something else: prompts .*chat_template_kwargs"):
        fusion.extract(place / "dated", ROWS, top_k=3, folder=tmp_path)
    given = ROWS, {"one": cache}, {"one": place / "dated"}
    plain, opened, closed = (
        prompt_of(fusion.FusionCollator(place / "dated", *given, **more), place / "dated").replace(" ", "")
        for more in ({}, {"chat_template_kwargs": {"opening": "now: "}}, {"answer_prefix": "so: "})
    )
    assert opened == "now:" + plain
    assert closed == plain + "so:"


def test_what_cannot_say_how_prompts_are_written_is_refused(place):
    tokenizer = AutoTokenizer.from_pretrained(place / "dated")
    with pytest.raises(ValueError, match=r"chat_template_kwargs is 'x'; give keys and values"):
        prompt_format_of(tokenizer, "x", None, None)
    with pytest.raises(ValueError, match=r"answer_prefix is 3; give the text"):
        prompt_format_of(tokenizer, None, 3, None)
    with pytest.raises(
        ValueError, match=r"source: chat_template_kwargs is for chat templates, and its tokenizer has none"
    ):
        fusion.extract(place / "source", ROWS, chat_template_kwargs={"a": 1})
    with pytest.raises(ValueError, match=r"chat_template_kwargs sets other, which its chat template does not"):
        fusion.extract(place / "dated", ROWS, chat_template_kwargs={"other": 1})


def test_texts_longer_than_a_model_reads_are_refused_with_its_length(place):
    message = (
        r"short reads at most 64 tokens \(n_positions\), and 1 of the given examples are longer: the first .*'say'"
    )
    with pytest.raises(ValueError, match=message):
        fusion.extract(place / "short", [*ROWS, *LONG], top_k=3)
    assert len(fusion.extract(place / "short", [*ROWS, *LONG], top_k=3, max_length=64)) > 64 - 8


def test_a_token_without_an_embedding_is_refused_by_its_text(place, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(place / "source")
    AutoModelForCausalLM.from_pretrained(place / "source").save_pretrained(tmp_path)
    tokenizer.add_tokens(["<zz>"])
    tokenizer.save_pretrained(tmp_path)
    assert len(fusion.extract(tmp_path, ROWS, top_k=3)) > 0  # no text has it
    with pytest.raises(
        ValueError, match=r"1 of 1 examples, the first .*, have tokens such as '<zz>' of id \d+, beyond its"
    ):
        fusion.extract(tmp_path, [{"prompt": "say", "response": "<zz> dog"}], top_k=3)


def test_a_trainer_refuses_texts_that_its_model_cannot_read(place, tmp_path):
    class Mixed(fusion.FusionMixin, Trainer):
        pass

    cache = fusion.extract(place / "source", LONG, top_k=3)
    collator = fusion.FusionCollator(place / "short", LONG, {"one": cache}, {"one": place / "source"})
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel .*reads at most 64 tokens \(n_positions\)"):
        Mixed(
            model=AutoModelForCausalLM.from_pretrained(place / "short", dtype=torch.float32),
            args=TrainingArguments(str(tmp_path), remove_unused_columns=False, report_to=[], use_cpu=True),
            objectives=[ForwardKL()], train_dataset=collator.dataset(), data_collator=collator,
            processing_class=AutoTokenizer.from_pretrained(place / "short"),
        )  # fmt: skip
