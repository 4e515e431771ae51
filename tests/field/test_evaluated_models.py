"""Models as people bring them to an evaluation: no end token, too little context, no model at all; and what is said then."""

import json

import pytest
from huggingface_hub import constants
from lm_eval.api.instance import Instance

from fusion.data.example import Example
from fusion.data.prompt_format import PromptFormat
from fusion.models.loading import ModelRef, load_config, load_model, load_tokenizer
from fusion.report.score_table import markdown, score_table
from fusion_eval.results import Result
from fusion_eval.runners import evaluate as module
from fusion_eval.runners.answer_cache import AnswerCache, AnswerCachingLM
from fusion_eval.runners.benchmark import Comparisons, check_comparisons
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate
from fusion_eval.runners.heldout import HeldoutSettings, score
from fusion_eval.runners.shared_prefix_lm import SharedPrefixLM
from fusion_eval.suites.suite import load_suite
from tests.helpers import benchmark_files, tiny


@pytest.fixture
def no_end_token(tmp_path):
    """A model whose tokenizer has neither bos nor eos nor a padding token, and whose configuration names none."""
    folder = tiny.folder("qwen2", tmp_path / "endless")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    none = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | none))
    (folder / "generation_config.json").unlink()
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (None, None, None)
    return ModelRef(str(folder))


def benchmark_lm(ref) -> SharedPrefixLM:
    return SharedPrefixLM(ref, dtype="float32", device="cpu", batch_tokens=500, batch_size=4)


def test_held_out_answers_of_a_tokenizer_without_an_end_token_end_at_their_limit(no_end_token):
    examples = [Example(({"role": "user", "content": f"number {i}: "},), "one", "d") for i in range(3)]
    how = HeldoutSettings(exact_match=("d",), max_new_tokens=4)
    samples = score(no_end_token, examples, [PromptFormat()] * 3, how, progress=lambda units: None)
    assert all(sample.answer and sample.nll for sample in samples)


def test_benchmarks_answer_without_an_end_token_and_as_the_model_does_alone(no_end_token):
    lm, context = benchmark_lm(no_end_token), "the quick brown fox"
    settings = {"until": ["\n\n\n"], "max_gen_toks": 6}
    prompts = [context, "how much is 12 + 30? it is"]
    answers = lm.generate_until(
        [Instance("generate_until", {}, (text, dict(settings)), i) for i, text in enumerate(prompts)]
    )
    model, tokenizer = load_model(no_end_token), load_tokenizer(no_end_token)
    ids = tokenizer(context, return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert answers[0] == tokenizer.decode(out[0, ids.shape[1] :])


def test_a_whole_text_cannot_be_measured_without_a_token_to_begin_after(no_end_token):
    lm = benchmark_lm(no_end_token)
    with pytest.raises(ValueError, match="endless has neither a bos nor an eos token to read a text after. Leave"):
        lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("the lazy dog",), 0)], disable_tqdm=True)


@pytest.mark.parametrize(
    ("method", "second", "room"),
    [("loglikelihood", " dog", 256 + 1), ("generate_until", {"until": ["\n"], "max_gen_toks": 56}, 256 - 56)],
)
def test_tokens_that_were_cut_off_a_prompt_are_counted_exactly_and_kept(tmp_path, method, second, room):
    lm = benchmark_lm(ModelRef(str(tiny.folder("qwen2", tmp_path / "m"))))

    def length(context: str) -> int:
        behind = second if method == "loglikelihood" else ""
        return len(lm.tokenizer(context + behind)["input_ids"])

    short, long = "fox", " ".join(["the quick brown fox jumps"] * 60)
    longest = next(text for n in range(len(long)) if length(text := long[n:]) == room)
    assert length(long) > room
    requests = [
        Instance(method, {}, (context, second), 0, metadata=("t", n, 1))
        for n, context in enumerate([short, longest, long])
    ]
    for ask in (lambda: lm, lambda: pytest.fail("answered already")):  # the second time from the file
        asked = AnswerCachingLM(ask, {"t": AnswerCache(tmp_path / "t.jsonl")}, lambda units: None)
        getattr(asked, method)(requests)
        assert asked.tokens_cut == {("t", 2): length(long) - room}


def test_a_prompt_that_was_cut_is_in_the_result_and_below_every_table(tmp_path):
    data = benchmark_files.benchmarks(tmp_path / "data")
    suite = load_suite("quick").model_copy(update={"tasks": ["gsm8k"], "name": "small"})
    settings = BenchmarkSettings(data=data, limit=2, max_new_tokens=250)
    models = {
        "small": tiny.folder("qwen2", tmp_path / "small"),
        "roomy": benchmark_files.roomy("qwen2", tmp_path / "roomy"),
    }
    results = [
        evaluate(ModelRef(str(path)), suite, settings, name=name, out=tmp_path, progress=lambda n: lambda units: None)
        for name, path in models.items()
    ]
    cut = {result.model: [sample.prompt_tokens_cut for sample in result.samples] for result in results}
    assert all(n > 0 for n in cut["small"])
    assert set(cut["roomy"]) == {0}
    assert Result.load(tmp_path / "small/small.json") == results[0]
    said = f"Prompts whose beginning was cut off to fit the model's context: small: {len(cut['small'])} in gsm8k."
    assert said in score_table(results, None).caption
    assert said in markdown(results, None)
    assert "cut off" not in score_table(results[1:], None).caption


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"})
    )
    return folder


@pytest.mark.parametrize("load", [load_config, load_tokenizer, load_model])
def test_a_folder_without_a_configuration_is_named_with_the_model_inside(tmp_path, load):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"run has no config.json, so it is not the folder of a model. Give the folder"
    ):
        load(ModelRef(str(run)))
    tiny.folder("llama", run / "fused")
    with pytest.raises(FileNotFoundError, match=r"Did you mean .*run/fused\?"):
        load(ModelRef(str(run)))


def test_what_is_no_model_is_refused_before_any_model_is_evaluated(tmp_path, adapter):
    good = ModelRef(str(tiny.folder("llama", tmp_path / "good")))
    with pytest.raises(ValueError, match="holds a LoRA adapter .* of org/base, not a whole model. Fold it"):
        check_comparisons({"good": good, "adapter": ModelRef(str(adapter))}, Comparisons())
    with pytest.raises(ValueError, match="org/absent .*no such folder, it is not in the hub's cache") as error:
        check_comparisons({"good": good, "absent": ModelRef("org/absent")}, Comparisons())
    assert "hf download org/absent" in str(error.value)


def test_a_hub_id_without_a_connection_is_said_to_be_neither_a_folder_nor_in_the_cache(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for load in (load_config, load_tokenizer, load_model):
        with pytest.raises(ValueError, match="no such folder, it is not in the hub's cache .*HF_HUB_OFFLINE is set"):
            load(ModelRef("org/absent"))


def test_questions_that_cannot_be_had_from_the_hub_are_named_with_the_option(tmp_path, monkeypatch):
    def unreachable(*_args, **_options):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(module, "load_subtasks", unreachable)
    ref, suite = ModelRef(str(tiny.folder("llama", tmp_path / "m"))), load_suite("quick")
    with pytest.raises(ValueError, match=r"questions of arc_c-stock .*openai/gsm8k.*\(--data\), or run once with"):
        evaluate(ref, suite, BenchmarkSettings(), name="m", out=tmp_path, progress=lambda n: lambda units: None)
