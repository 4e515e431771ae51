"""What callers hand over from Python: other forms that are meant, and words for what is not."""

import json
import subprocess
import sys

import pytest

from fusion.quickstart import MODELS

CALLS = {
    # what is taken
    "settings of an objective": ("loss([{'kind': 'forward_kl', 'weight': 0.5}])", "FusionLoss"),
    "settings of a weighting": ("collate(weighting={'kind': 'gold_posterior'})", "FusionCollator"),
    "a cache by its folder": ("fusion.FusionCollator(tokenizer, examples, {'n': folder}, {'n': model})", "FusionCollator"),
    "a type of torch": ("read(dtype=torch.float32)", "Cache"),
    "a number of numpy": ("read(top_k=numpy.int64(5))", "Cache"),
    # what is not
    "a kind alone": (
        "loss(['forward_kl'])",
        "objectives[0] is 'forward_kl'; give an object of fusion.objectives, or its settings as in a configuration, "
        "{\"kind\": 'forward_kl'}.",
    ),
    "an unknown kind": ("loss([{'kind': 'kl'}])", "objectives[0].kind: there is no kl; it is called forward_kl here"),
    "an unknown key": (
        "loss([fusion.objectives.ForwardKL(), {'kind': 'forward_kl', 'wieght': 1}])",
        "unknown key objectives[1].wieght; did you mean weight?",
    ),
    "a class": ("loss([fusion.objectives.ForwardKL])", "objectives[0] is the class ForwardKL; give an object of it"),
    "one objective": ("loss(fusion.objectives.ForwardKL())", "objectives should be a list, such as"),
    "no objective": ("loss([])", "objectives is empty, so that there is no loss"),
    "a tokenizer for its size": (
        "fusion.FusionLoss([fusion.objectives.ForwardKL()], vocabulary=tokenizer)",
        "vocabulary is a TokenizersBackend; it is a whole number of at least 1, len(tokenizer) of the pivot.",
    ),
    "a weighting's name": ("collate(weighting='learned')", "weighting is 'learned'; give an object of fusion.weighting"),
    "another alignment": ("collate(alignment='ctm')", "alignment is 'ctm'; choose one of prefix, truncate, dtw."),
    "one cache": ("fusion.FusionCollator(tokenizer, examples, cache, {'n': model})", "caches is a Cache; give one by the name"),
    "rows for a cache": (
        "fusion.FusionCollator(tokenizer, examples, {'n': [1]}, {'n': model})",
        "caches['n'] is a list; give a Cache, from fusion.extract, or its folder.",
    ),
    "a loaded model to read": (
        "fusion.extract(transformers.AutoModelForCausalLM.from_pretrained(model), examples)",
        f"model is a LlamaForCausalLM; give the folder or hub id that it is loaded from, such as '{MODELS['numbers']}'.",
    ),
    "a loaded model to measure": (
        "fusion.evaluate(transformers.AutoModelForCausalLM.from_pretrained(model), examples)",
        "model is a LlamaForCausalLM; give the folder or hub id",
    ),
    "no entries": ("read(top_k=0)", "top_k is 0; it is a whole number of at least 1."),
    "entries as text": ("read(top_k='5')", "top_k is '5'; it is a whole number of at least 1."),
    "a short name of a type": ("read(dtype='fp16')", "dtype is 'fp16'; choose one of float32, bfloat16, float16"),
    "no new tokens": ("fusion.evaluate(model, examples, max_new_tokens=0)", "max_new_tokens is 0; it is a whole number"),
    "nothing to read": ("fusion.read_examples(None)", "Examples are a NoneType; give a list of rows such as"),
    "texts for rows": ("fusion.read_examples(['1 + 1', '2 + 2'])", "row 0 is '1 + 1'; give a list of rows such as"),
    "a list for a configuration": ("fusion.run([1])", "A configuration is a YAML file, the name of a recipe, a dictionary"),
}  # fmt: skip
SETTING = """
import json, numpy, sys, torch, transformers, fusion
from fusion.quickstart import MODELS
calls, folder, model = json.load(sys.stdin), sys.argv[1], str(MODELS["numbers"])
examples = fusion.read_examples([{"prompt": "in words, 42 =", "response": " forty-two"}])
tokenizer = transformers.AutoTokenizer.from_pretrained(MODELS["student"])
cache = fusion.extract(model, examples, folder=folder)
loss = lambda objectives: fusion.FusionLoss(objectives, vocabulary=500)
collate = lambda **how: fusion.FusionCollator(tokenizer, examples, {"n": cache}, {"n": model}, **how)
read = lambda **how: fusion.extract(model, examples, **how)
found = {}
for name, call in calls.items():
    try:
        found[name] = type(eval(call)).__name__
    except ValueError as error:
        found[name] = str(error)
    except Exception as error:
        found[name] = repr(error)
json.dump(found, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each call gives: the name of a type, or the words of a ValueError. In a process without the tests' type checker."""
    place = tmp_path_factory.mktemp("given")
    subprocess.run(
        [sys.executable, "-c", SETTING, str(place / "cache"), str(place / "found.json")],
        input=json.dumps({name: call for name, (call, _) in CALLS.items()}),
        text=True,
        check=True,
    )
    return json.loads((place / "found.json").read_text())


@pytest.mark.parametrize("name", CALLS)
def test_what_is_given_is_taken_or_answered_in_words(answers, name):
    assert CALLS[name][1] in answers[name]
