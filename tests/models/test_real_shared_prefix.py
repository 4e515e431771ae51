"""Real models behind real worked examples: what is read once gives the rows and the answers of texts that are read whole."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from fusion.data.encode import encode, encode_prompt
from fusion.data.prompt_format import PromptFormat
from fusion.models import shared_prefix
from fusion.models.generate import GenerationSettings
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.quickstart.skills import make_questions
from fusion.sources import SourceRequest, Transformers

REAL = os.environ.get("FUSION_REAL_MODELS", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models"),
]
RECIPE = yaml.safe_load((Path(__file__).parents[2] / "configs/real_skills.yaml").read_text())


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "gemma-3-270m"])
def wanted(request):
    ref = ModelRef(str(Path(REAL, request.param)))
    return SourceRequest(ref, load_tokenizer(ref), 10, prompt_format=PromptFormat(template="plain", stop=("\n",)))


@pytest.fixture(scope="module")
def asked():
    """Messages, the format with the worked examples of the recipe, and the workings that are read."""
    shots = RECIPE["sources"][0]["shots"]["shopping"]
    rows = make_questions("shopping", 6, 0, split="validation")
    messages = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    form = PromptFormat(template="plain", shots=shots, answer_prefix="\n", stop=("\n",))
    return [(each, form.for_prompt(each), row["workings"]) for each, row in zip(messages, rows, strict=True)]


def both_ways(monkeypatch, ask):
    """What comes back where the beginning is read once, and where every text is read whole."""
    together = ask()
    monkeypatch.setattr(shared_prefix, "MIN_PREFIX", 10_000)
    return together, ask()


def test_rows_differ_by_rounding(wanted, asked, monkeypatch):
    texts = [encode(wanted.tokenizer, said, workings, prompt_format=form) for said, form, workings in asked]
    source = Transformers().open(wanted)
    together, whole = both_ways(monkeypatch, lambda: source.rows(texts))
    for name in ("gold", "logprobs", "mean", "std"):
        torch.testing.assert_close(getattr(together, name), getattr(whole, name), atol=2e-4, rtol=0)
    assert together.gold.mean() > -2  # worked examples were read: without them workings are no likely text


def test_greedy_answers_are_the_same(wanted, asked, monkeypatch):
    prompts = [encode_prompt(wanted.tokenizer, said, prompt_format=form).ids for said, form, _ in asked]
    generator = Transformers().open_generator(wanted)
    together, whole = both_ways(monkeypatch, lambda: generator.generate(prompts, GenerationSettings(24)))
    assert together == whole
    assert all(one.text for each in together for one in each)
