"""Suites and tasks: every task of every suite runs offline on local files, and mistakes are named."""

from importlib.metadata import version as installed_version
from itertools import pairwise

import pytest

from fusion.models.loading import ModelRef
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate
from fusion_eval.statistics.comparison import summarise
from fusion_eval.suites import local_data
from fusion_eval.suites.scoring import SCORING_VERSION
from fusion_eval.suites.suite import catalogue, load_suite, suites
from fusion_eval.suites.tasks import _split_limit, _spread, load_subtasks, runs_code, version
from tests.helpers import benchmark_files, lm_eval_verdicts

ELEVEN = ["bbh", "arc_c", "mmlu", "gsm8k", "math", "theoremqa", "mbpp", "humaneval", "ifeval", "drop", "hellaswag"]


def still(total):
    return lambda units: None


def test_the_suites_are_those_that_are_promised():
    assert suites().keys() == {"infi11", "infi11-stock", "quick", "math", "code", "reasoning"}
    assert load_suite("infi11").tasks == ELEVEN
    assert [task.removesuffix("-stock") for task in load_suite("infi11-stock").tasks] == ELEVEN


@pytest.fixture(scope="module")
def results(data, llama, tmp_path_factory):
    how = BenchmarkSettings(data=data, limit=2, max_new_tokens=4, allow_code_execution=True, batch_size=4)
    out = tmp_path_factory.mktemp("suites")
    return {
        suite: evaluate(ModelRef(str(llama)), load_suite(suite), how, name="llama", out=out, progress=still)
        for suite in ("infi11", "infi11-stock", "quick")
    }


@pytest.mark.parametrize("suite", ["infi11", "infi11-stock", "quick"])
def test_every_task_runs_offline_and_gives_its_measure(results, suite):
    found = summarise(results[suite], resamples=10)
    assert found.keys() == {*load_suite(suite).tasks, "mean"}
    for task in load_suite(suite).tasks:
        metric = "accuracy" if catalogue()[task].metric else "bits_per_byte"
        assert found[task].keys() == {metric}
        rows = {"theoremqa": 2, "mbpp": 2, "humaneval": 1, "ifeval": 1, "drop": 1}
        few = 1 if task == "humaneval-text" else rows.get(task.removesuffix("-stock"), 2)
        assert found[task][metric].n == few
    assert results[suite].provenance["skipped"] == {}
    assert results[suite].provenance["scores"]["mean"].keys() == found["mean"].keys()


def test_items_say_what_was_asked_expected_and_answered(results):
    samples = {sample.domain: sample for sample in results["infi11"].samples} | {
        i.domain: i for i in results["quick"].samples
    }
    assert samples["gsm8k"].prompt.startswith("How much is")
    assert samples["gsm8k"].answer is not None
    assert samples["ifeval"].target == "punctuation:no_comma, length_constraints:number_words"
    assert set(samples["ifeval"].metrics) == {"prompt_level_strict_acc", "prompt_level_loose_acc"}
    assert samples["mmlu-stock"].target == "B"
    assert samples["mmlu-stock"].answer in "ABCD"
    assert samples["hellaswag-stock"].answer in ("fries.", "sleeps.", "flies.", "sings.")
    assert samples["wikitext"].nll > 0
    assert samples["wikitext"].score is None
    assert samples["humaneval-text"].bytes == len("    return 2 * x\n")


def test_theoremqa_leaves_out_what_needs_a_picture(data):
    (subtask,) = load_subtasks("theoremqa", data)
    assert [doc["question"] for doc in subtask.task.eval_docs] == ["Is 2 even?", "1 + 1?"]


@pytest.mark.parametrize(("task", "parts"), [("mmlu", 57), ("bbh", 27), ("math", 7), ("gsm8k", 1)])
def test_subsets_are_parts_of_a_task(data, task, parts):
    found = load_subtasks(task, data)
    assert len(found) == parts
    assert len({part.subset for part in found}) == parts
    assert all((part.subset is None) == (parts == 1) for part in found)


def test_every_subset_of_mmlu_counts_the_same_where_the_suite_says_so(tmp_path, llama):
    folder = benchmark_files.benchmarks(tmp_path / "data")
    row = {"question": "1 + 1?", "choices": ["one", "two", "three", "four"], "answer": "B"}
    many = [
        {"subject": name, **row, "question": f"{n}?"}
        for name in benchmark_files.SUBJECTS
        for n in range(1 + 2 * (name == "law"))
    ]
    many += [{"subject": "anatomy", **row, "question": f"bones {n}?"} for n in range(4)]
    benchmark_files.write(folder, "mmlu/test", many)
    suite = load_suite("infi11").model_copy(update={"tasks": ["mmlu"]})
    how = BenchmarkSettings(data=folder, max_new_tokens=2)
    samples = evaluate(ModelRef(str(llama)), suite, how, name="m", out=tmp_path / "out", progress=still).samples
    weights = {}
    for sample in samples:
        weights[sample.subset] = weights.get(sample.subset, 0.0) + sample.weight
    assert len(weights) == 57
    assert list(weights.values()) == pytest.approx([len(samples) / 57] * 57)
    assert len(samples) == 61


def test_code_is_skipped_with_a_reason_and_never_scored(data, llama, tmp_path):
    suite = load_suite("infi11").model_copy(update={"tasks": ["arc_c", "humaneval", "mbpp"]})
    result = evaluate(
        ModelRef(str(llama)),
        suite,
        BenchmarkSettings(data=data, max_new_tokens=2),
        name="m",
        out=tmp_path,
        progress=still,
    )
    assert {sample.domain for sample in result.samples} == {"arc_c"}
    assert result.provenance["skipped"].keys() == {"humaneval", "mbpp"}
    assert "--allow-code-execution" in result.provenance["skipped"]["mbpp"]


def test_a_suite_of_code_alone_is_refused_without_leave(data, llama, tmp_path):
    with pytest.raises(ValueError, match="Nothing of code can be measured: .*--allow-code-execution"):
        evaluate(
            ModelRef(str(llama)),
            load_suite("code"),
            BenchmarkSettings(data=data),
            name="m",
            out=tmp_path,
            progress=still,
        )


def test_code_is_told_from_its_task_file():
    assert [task for task in catalogue() if runs_code(task)] == ["mbpp", "humaneval", "mbpp-stock", "humaneval-stock"]


def test_versions_name_the_stock_task_and_ours():
    lm_eval = f"lm_eval-{installed_version('lm_eval')}"
    assert version("gsm8k") == f"gsm8k@3.0+1+scoring-{SCORING_VERSION}"
    assert version("gsm8k", "lm_eval") == f"gsm8k@3.0+1+{lm_eval}"
    assert version("gsm8k-stock") == version("gsm8k-stock", "lm_eval") == f"gsm8k-stock@3.0+{lm_eval}"
    assert version("theoremqa") == f"theoremqa@1+scoring-{SCORING_VERSION}"
    assert version("gsm8k-text") == "gsm8k-text@3.0+1"  # a likelihood, which nobody scores


def test_spans_from_local_files_are_those_of_the_hub(tmp_path):
    rows = [
        {"passage": "Ann threw. So did Tom.", "question": "Who threw?", "answers": ["Ann and Tom"]},
        {"passage": "He read War and Peace.", "question": "What?", "answers": ["War and Peace"]},
        {"passage": "Ann, then Tom.", "question": "Who?", "answers": [["Ann", "Tom"], "  Ann "]},
    ]  # fmt: skip
    benchmark_files.write(tmp_path, "drop/dev", rows)
    (subtask,) = load_subtasks("drop", tmp_path)
    found = [doc["answers"] for doc in subtask.task.eval_docs]
    assert found == [[["Ann", "Tom"]], [["War and Peace"]], [["Ann", "Tom"], ["Ann"]]]


def test_the_language_of_an_answer_is_always_judged_the_same(data):
    (subtask,) = load_subtasks("ifeval", data)
    doc = {
        "key": 1,
        "prompt": "?",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "de"}],
    }
    text = "Ja, in der Tat, alles war klar"  # a fifth of the guesses are Afrikaans
    assert len({subtask.task.process_results(doc, [text])["prompt_level_strict_acc"] for _ in range(60)}) == 1


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("punctuation:no_comma", "I am fine today and so is she."),
        ("change_case:english_lowercase", "all is well here."),
        ("startend:quotation", '"All is well."'),
        ("detectable_format:json_format", '{"a": 1}'),
    ],
)
def test_thoughts_do_not_break_an_instruction_and_what_is_said_does(data, instruction, said):
    (subtask,) = load_subtasks("ifeval", data)
    doc = {"key": 1, "prompt": "?", "instruction_id_list": [instruction], "kwargs": [{}]}
    assert lm_eval_verdicts.score(subtask, doc, said)
    assert lm_eval_verdicts.score(subtask, doc, f"<think>\nWell, Let me think, carefully.\n</think>\n\n{said}")
    assert not lm_eval_verdicts.score(subtask, doc, f"<think>\nWell.\n</think>\n\nWell, So: {said}")


@pytest.mark.parametrize(("n", "wanted", "chosen"), [(5, None, 5), (5, 9, 5), (100, 7, 7), (3, 0, 0), (10, 10, 10)])
def test_questions_are_spread_evenly_and_never_twice(n, wanted, chosen):
    found = _spread(n, wanted)
    assert len(found) == len(set(found)) == chosen
    assert all(0 <= i < n for i in found)
    if chosen > 1:
        gaps = {b - a for a, b in pairwise(found)}
        assert max(gaps) - min(gaps) <= 1


def test_a_limit_is_shared_among_subsets():
    assert _split_limit(7, 3) == [3, 2, 2]
    assert _split_limit(None, 2) == [None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [gsm8k]", "template: Field required"),
        ("template: plain\ntasks: [gsm9k]", "unknown task gsm9k; known are bbh"),
        ("template: plain\ntasks: []", "tasks: List should have at least 1 item"),
        ("template: loud\ntasks: [gsm8k]\nlimits: {}", "limits: Extra inputs are not permitted"),
        ("[gsm8k]", "should hold keys and values"),
        ("{", "is not valid YAML"),
    ],
)
def test_every_mistake_of_a_suite_is_named(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_suite(str(tmp_path / "mine.yaml"))


def test_a_suite_of_your_own_is_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("template: plain\ntasks: [gsm8k, wikitext]\nlimit: {gsm8k: 3}")
    assert load_suite(str(tmp_path / "mine.yaml")).name == "mine"


def test_an_unknown_suite_is_told_which_there_are():
    with pytest.raises(ValueError, match="no suite quik; known are code, infi11"):
        load_suite("quik")


def test_a_missing_file_names_itself_and_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gsm8k/train.jsonl.gz is missing .* leave --data out"):
        local_data.load("gsm8k", tmp_path)


def test_rows_without_a_field_are_named(tmp_path):
    benchmark_files.write(tmp_path, "bbh/bbh", [{"input": "?", "target": "yes"}])
    with pytest.raises(ValueError, match="rows of bbh lack the field 'task'"):
        local_data.load("bbh", tmp_path, "snarks")


def test_a_subset_without_rows_is_named(tmp_path):
    benchmark_files.write(tmp_path, "bbh/bbh", [{"task": "navigate", "input": "?", "target": "yes"}])
    with pytest.raises(ValueError, match="bbh has no rows of snarks in test"):
        local_data.load("bbh", tmp_path, "snarks")


def test_a_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match="rows.jsonl, line 2, is not JSON"):
        list(local_data.read_rows(tmp_path / "rows.jsonl"))


def test_plus_tests_are_taken_where_the_data_have_them(data, tmp_path):
    plus = {"task_id": 1, "prompt": "Double.", "code": "", "test_imports": [], "test_list": ["assert double(1) == 2"],
            "test": "assert double(0) == 0\nassert double(-1) == -2"}  # fmt: skip
    benchmark_files.write(tmp_path, "mbpp/mbppplus", [plus])
    (subtask,) = load_subtasks("mbpp", tmp_path)
    doc = subtask.task.eval_docs[0]
    score = subtask.task.config.process_results
    assert score(doc, ["def double(x): return 2 * x"]) == {"pass@1": 1.0, "pass@1_base": 1.0}
    assert score(doc, ["def double(x): return 2 if x else 9"]) == {"pass@1": 0.0, "pass@1_base": 1.0}
    assert score(doc, ["def double(x): return x"]) == {"pass@1": 0.0, "pass@1_base": 0.0}


def test_challenge_tests_stand_in_for_plus_tests(data):
    (subtask,) = load_subtasks("mbpp", data)
    doc = subtask.task.eval_docs[0] | {"challenge_test_list": ["assert double('a') == 'aa'"]}
    score = subtask.task.config.process_results
    assert score(doc, ["def double(x): return 2 * x"]) == {"pass@1": 1.0, "pass@1_base": 1.0}
    assert score(doc, ["def double(x): return {0: 0, 1: 2, 2: 4}[x]"]) == {"pass@1": 0.0, "pass@1_base": 1.0}


@pytest.mark.parametrize("task", ["humaneval", "humaneval-stock", "mbpp-stock"])
@pytest.mark.parametrize(("body", "passed"), [("2 * x", 1.0), ("x", 0.0), ("", 0.0), ("nonsense(", 0.0)])
def test_a_right_program_passes_and_a_wrong_one_does_not(data, task, body, passed):
    (subtask,) = load_subtasks(task, data)
    task_, doc = subtask.task, subtask.task.eval_docs[0]
    text = f"    return {body}\n" if task != "mbpp-stock" else f"def double(x):\n    return {body}\n"
    request = task_.construct_requests(doc, "", doc_id=0, metadata=(task, 0, 1), apply_chat_template=False)
    request.resps.append(text)
    task_._instances = [request]
    task_.apply_filters()
    (found,) = request.filtered_resps.values()
    assert task_.process_results(doc, [found])["pass_at_1" if task == "mbpp-stock" else "pass@1"] == passed


def test_a_benchmark_without_a_form_of_files_is_refused_by_name(tmp_path):
    for ask in (local_data.load, local_data.fingerprint):
        with pytest.raises(
            ValueError, match="no form of files for the benchmark gpqa; with --data there are arc_challenge"
        ):
            ask("gpqa", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "a", "answer": "b"}\n[]\n', "test.jsonl, line 2: a row should be an object"),
        (b'{"question"', "test.jsonl, line 1, is not JSON"),
        (b'{"question": "a", "answer": "b"}\n{"question": "\xe9"}\n', "test.jsonl is cut or damaged after line"),
    ],
)
def test_a_damaged_file_of_a_benchmark_is_named(tmp_path, content, message):
    (tmp_path / "gsm8k").mkdir()
    for split in ("test", "train"):
        (tmp_path / f"gsm8k/{split}.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message.replace("test", "(test|train)")):
        local_data.load("gsm8k", tmp_path)
