"""Answers are kept as they come: a stopped evaluation goes on, a finished one is not asked again, damage is named."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from fusion.models.loading import ModelRef
from fusion_eval.results import Result
from fusion_eval.runners import evaluate as module
from fusion_eval.runners.answer_cache import AnswerCache, AnswerCachingLM, request_key
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate
from fusion_eval.suites.suite import load_suite


class Counting(LM):
    """Answers with the length of what it is asked, tells the hook of every second answer, stops after `until`."""

    def __init__(self, until=10**9):
        super().__init__()
        self.asked, self.until = [], until

    def _all(self, requests, answer, method):
        found = []
        for n, request in enumerate(requests):
            if len(self.asked) == self.until:
                raise KeyboardInterrupt
            self.asked.append(request.args)
            found.append(answer(request.args))
            if n % 2 == 0:
                self.cache_hook.add_partial(method, request.args, found[-1])
        return found

    def loglikelihood(self, requests, disable_tqdm=False):
        return self._all(requests, lambda args: (-float(len(args[1])), True), "loglikelihood")

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return self._all(requests, lambda args: -float(len(args[0])), "loglikelihood_rolling")

    def generate_until(self, requests, disable_tqdm=False):
        return self._all(requests, lambda args: args[0].upper(), "generate_until")


def instance(method, *arguments, task="t"):
    return Instance(method, {}, arguments, 0, metadata=(task, 0, 1))


def lm(folder, model, progress=lambda units: None):
    return AnswerCachingLM(
        lambda: model, {"t": AnswerCache(folder / "t.jsonl"), "u": AnswerCache(folder / "u.jsonl")}, progress
    )


@pytest.mark.parametrize(
    ("method", "arguments", "answer"),
    [
        ("loglikelihood", ("a", " bc"), (-3.0, True)),
        ("loglikelihood_rolling", ("abcd",), -4.0),
        ("generate_until", ("ä\u2028b", {"until": ["\n"]}), "Ä\u2028B"),
    ],
)
def test_an_answer_is_the_same_when_it_is_read_again(tmp_path, method, arguments, answer):
    first, second = Counting(), Counting()
    assert getattr(lm(tmp_path, first), method)([instance(method, *arguments)]) == [answer]
    assert getattr(lm(tmp_path, second), method)([instance(method, *arguments)]) == [answer]
    assert (len(first.asked), len(second.asked)) == (1, 0)


def test_what_was_answered_before_a_stop_is_not_asked_again(tmp_path):
    requests = [instance("loglikelihood_rolling", "x" * n) for n in range(1, 31)]
    with pytest.raises(KeyboardInterrupt):
        lm(tmp_path, Counting(until=20)).loglikelihood_rolling(requests)
    after = Counting()
    assert lm(tmp_path, after).loglikelihood_rolling(requests) == [-float(n) for n in range(1, 31)]
    assert len(after.asked) == 30 - 18  # two calls of eight are whole, and of the third the hook was told of two
    kept = {key for key, _, _ in map(json.loads, (tmp_path / "t.jsonl").read_text().splitlines())}
    assert len(kept) == 30


def test_a_request_that_stands_twice_is_asked_once(tmp_path):
    model, told = Counting(), []
    requests = [
        instance("loglikelihood", "a", " b"),
        instance("loglikelihood", "c", " d"),
        instance("loglikelihood", "a", " b"),
    ]
    assert lm(tmp_path, model, told.append).loglikelihood(requests) == [(-2.0, True)] * 3
    assert len(model.asked) == 2
    assert sum(told) == 3


def test_progress_counts_old_answers_too(tmp_path):
    requests = [instance("loglikelihood", "a", f" {n}") for n in range(5)]
    lm(tmp_path, Counting()).loglikelihood(requests[:3])
    told = []
    lm(tmp_path, Counting(), told.append).loglikelihood(requests)
    assert told[0] == 3
    assert sum(told) == 5


def test_a_model_is_not_loaded_for_what_is_known(tmp_path):
    lm(tmp_path, Counting()).loglikelihood([instance("loglikelihood", "a", " b")])

    def load():
        raise AssertionError("loaded")

    again = AnswerCachingLM(load, {"t": AnswerCache(tmp_path / "t.jsonl")}, lambda units: None)
    assert again.loglikelihood([instance("loglikelihood", "a", " b")]) == [(-2.0, True)]


def test_each_task_has_its_own_file(tmp_path):
    lm(tmp_path, Counting()).loglikelihood(
        [instance("loglikelihood", "a", " b"), instance("loglikelihood", "c", " d", task="u")]
    )
    assert [len((tmp_path / f"{task}.jsonl").read_text().splitlines()) for task in "tu"] == [1, 1]


def test_a_line_cut_off_while_it_was_written_is_asked_again(tmp_path):
    file = AnswerCache(tmp_path / "t.jsonl")
    file.add("a", 1)
    file.add("b", 2)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-4])
    again = AnswerCache(file.path)
    assert again.answers == {"a": 1}
    again.add("c", 3)
    assert AnswerCache(file.path).answers == {"a": 1, "c": 3}


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "t.jsonl").write_text('["a", 1, 0]\nnonsense\n["b", 2, 0]\n')
    with pytest.raises(ValueError, match=r"t.jsonl, line 2, is damaged .* Delete the line"):
        AnswerCache(tmp_path / "t.jsonl")


@pytest.mark.parametrize("answer", [float("nan"), (float("nan"), False)])
def test_a_likelihood_that_is_nan_is_no_score_and_is_not_kept(tmp_path, answer):
    file = AnswerCache(tmp_path / "big" / "t.jsonl")
    with pytest.raises(ValueError, match="big: the model gives a likelihood of NaN to a text of t, which is no score"):
        file.add("a", answer)
    assert not file.path.exists()
    file.path.parent.mkdir()
    file.path.write_text('["a", NaN, 0]\n')
    with pytest.raises(ValueError, match=r"t\.jsonl, line 1, is damaged .*NaN.*Delete the line"):
        AnswerCache(file.path)


def test_an_option_that_cannot_come_is_an_answer(tmp_path):
    AnswerCache(tmp_path / "t.jsonl").add("a", (float("-inf"), False))


def test_a_key_changes_with_everything_that_is_asked():
    keys = {
        request_key(method, arguments)
        for method, arguments in [
            ("generate_until", ("a", {"max_gen_toks": 4})),
            ("generate_until", ("a", {"max_gen_toks": 5})),
            ("generate_until", ("b", {"max_gen_toks": 4})),
            ("loglikelihood", ("a", "b")),
            ("loglikelihood", ("b", "a")),
        ]
    }
    assert len(keys) == 5


SUITE = load_suite("quick").model_copy(update={"tasks": ["arc_c-stock", "gsm8k-text"], "limit": {}})


def still(total):
    return lambda units: None


def test_a_finished_evaluation_is_read_and_a_lost_result_is_made_of_the_answers(data, llama, tmp_path, monkeypatch):
    how, ref = BenchmarkSettings(data=data), ModelRef(str(llama))
    first = evaluate(ref, SUITE, how, name="m", out=tmp_path, progress=still)

    def load(*arguments, **settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(module, "load_backend", load)
    (tmp_path / "m/quick.json").unlink()
    assert evaluate(ref, SUITE, how, name="m", out=tmp_path, progress=still).samples == first.samples
    monkeypatch.setattr(module, "_measure", load)
    assert evaluate(ref, SUITE, how, name="m", out=tmp_path, progress=still) == Result.load(tmp_path / "m/quick.json")


def test_another_limit_or_model_makes_another_result_from_what_is_known(data, llama, neox, tmp_path):
    how = BenchmarkSettings(data=data, limit=1)
    few = evaluate(ModelRef(str(llama)), SUITE, how, name="m", out=tmp_path, progress=still)
    all_ = evaluate(ModelRef(str(llama)), SUITE, BenchmarkSettings(data=data), name="m", out=tmp_path, progress=still)
    assert (len(few.samples), len(all_.samples)) == (2, 6)
    other = evaluate(ModelRef(str(neox)), SUITE, how, name="m", out=tmp_path, progress=still)
    assert other.provenance["key"]["model"] != few.provenance["key"]["model"]
    assert [sample.nll for sample in other.samples] != [sample.nll for sample in few.samples]
    assert [sample.id for sample in other.samples] == [sample.id for sample in few.samples]


RUN = """
import sys, time
from pathlib import Path
from fusion.models.loading import ModelRef
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate
from fusion_eval.runners.shared_prefix_lm import SharedPrefixLM
from fusion_eval.suites.suite import load_suite
before = SharedPrefixLM._model_generate
def slow(self, *arguments, **settings):
    time.sleep(0.4)
    return before(self, *arguments, **settings)
SharedPrefixLM._model_generate = slow
suite = load_suite("math").model_copy(update={"tasks": ["gsm8k", "math"]})
how = BenchmarkSettings(data=Path(sys.argv[1]), max_new_tokens=3, batch_size=1)
evaluate(ModelRef(sys.argv[2]), suite, how, name="m", out=Path(sys.argv[3]), progress=lambda total: lambda units: None)
"""


def test_a_killed_evaluation_ends_with_the_same_result_as_one_that_was_not(data, llama, tmp_path):
    def go(out):
        suite = load_suite("math").model_copy(update={"tasks": ["gsm8k", "math"]})
        how = BenchmarkSettings(data=data, max_new_tokens=3, batch_size=1)
        return evaluate(ModelRef(str(llama)), suite, how, name="m", out=out, progress=still)

    def answers(out):
        return [line for file in out.glob("answers/*/*.jsonl") for line in file.read_text().splitlines()]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", RUN, str(data), str(llama), str(killed)], env=environment)
    end = time.monotonic() + 120
    while len(answers(killed)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = answers(killed)
    assert 3 <= len(before) < 10
    assert not (killed / "m").exists()
    assert go(killed).samples == go(whole).samples
    assert set(before) <= set(answers(killed))
    assert sorted(answers(killed)) == sorted(answers(whole))
    assert len(answers(whole)) == 10
