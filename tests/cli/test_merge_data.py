"""The data of `fusion merge`: which are read, and which are refused before anything is merged."""

import json

import pytest
import yaml

from fusion.cli.merge_data import merge_evaluations, validation_examples
from fusion.merging.recipes.merge_recipe import parse_recipe
from fusion.merging.recipes.search_settings import WeightSearch
from tests.helpers import runs


def write_rows(file, prompts):
    file.write_text("\n".join(json.dumps({"prompt": prompt, "response": "yes"}) for prompt in prompts))
    return {"path": str(file)}


def evaluations(*entries, validation=()):
    raw = {"models": ["a", "b"], "method": "linear", "evaluation": list(entries)}
    return merge_evaluations(parse_recipe(raw, "test"), validation)


def test_validation_data_are_loaded_and_may_not_share_an_example_with_test_data(tmp_path):
    validation = write_rows(tmp_path / "dev.jsonl", "abcd")
    assert [example.prompt for example in validation_examples(WeightSearch(validation=validation))] == [*"abcd"]
    overlapping = WeightSearch(validation=validation, test=write_rows(tmp_path / "test.jsonl", "cx"))
    with pytest.raises(ValueError, match="1 of 4 validation examples are test examples too"):
        validation_examples(overlapping)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({"path": "openai/gsm8k", "split": "test"}, "would be searched on its split `test`"),
        ({"path": "x.jsonl", "promt": "{a}"}, "unknown key search.validation.promt; did you mean prompt"),
    ],
)
def test_validation_data_that_are_a_test_split_or_have_unknown_keys_are_refused(validation, message):
    with pytest.raises(ValueError, match=message):
        validation_examples(WeightSearch(validation=validation))


def test_every_file_is_a_domain_and_what_is_there_twice_counts_once(tmp_path, capsys):
    one, two = write_rows(tmp_path / "sums.dev.jsonl", "abcd"), write_rows(tmp_path / "words.jsonl", "dex")
    [found] = evaluations(one["path"], two)
    assert (found.name, found.describe([])) == ("heldout", "6 examples (sums 4, words 2)")
    assert "1 examples left out that are there already" in capsys.readouterr().out
    [labelled] = evaluations(two | {"domain": "mine", "limit": 2})
    assert labelled.describe([]) == "2 examples (mine 2)"


def test_what_weights_are_chosen_on_may_not_be_measured_on_whatever_case_and_space(tmp_path):
    validation = validation_examples(WeightSearch(validation=write_rows(tmp_path / "dev.jsonl", ["Add  1", "b"])))
    held = write_rows(tmp_path / "held.jsonl", ["x", "add 1"])
    with pytest.raises(ValueError, match=r"1 of 2 validation examples .* \(the first: .*dev.jsonl, .*held.jsonl"):
        evaluations(held, validation=validation)
    assert evaluations(held, validation=validation[1:])[0].name == "heldout"


def test_a_search_without_evaluation_shows_the_validation_examples_by_that_name(tmp_path):
    validation = validation_examples(WeightSearch(validation=write_rows(tmp_path / "dev.jsonl", "ab")))
    recipe = parse_recipe({"models": ["a", "b"], "method": "linear"}, "test")
    assert [each.name for each in merge_evaluations(recipe, validation)] == ["validation"]
    assert merge_evaluations(recipe, []) == []


def test_built_in_data_are_validation_in_a_search_and_held_out_in_an_evaluation():
    validation = validation_examples(WeightSearch(validation={"path": "builtin:sums", "limit": 40}))
    [found] = evaluations({"path": "builtin:sums", "limit": 40}, validation=validation)
    assert found.describe([]) == "40 examples (sums 40)"
    assert not {example.question for example in validation} & {example.question for example in found.examples}


def test_a_run_brings_its_heldout_data_its_answers_and_its_prompts(tmp_path):
    changes = {"evaluation": {"exact_match": ["d0"], "max_new_tokens": 3}}
    raw = runs.raw(tmp_path, **changes)
    raw["pivot"] |= {"template": "plain", "stop": ["\n\n"]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(raw))
    [found] = evaluations(str(tmp_path / "run.yaml"))
    assert found.describe([]) == "6 examples (d0 3, d1 3), and 3 answers of at most 3 tokens"
    assert (found.prompt_format.template, found.prompt_format.stop) == ("plain", ("\n\n",))


def test_a_suite_is_known_by_its_name_or_its_file(tmp_path):
    pytest.importorskip("lm_eval")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"name": "own", "template": "plain", "tasks": ["arc_c"]}))
    named, own = evaluations("quick", {"suite": str(tmp_path / "own.yaml"), "limit": 2})
    assert (named.name, own.describe([])) == ("quick", "own, questions of each task: arc_c 2")
    [from_path] = evaluations(str(tmp_path / "own.yaml"))
    assert from_path.name == "own"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "x.jsonl", "promt": "{a}"}, "unknown key evaluation.0.promt; did you mean prompt"),
        ({"path": "x.jsonl", "limit": 0}, "evaluation.0.limit: Input should be greater than 0"),
        ({"pat": "x.jsonl"}, "evaluation.0.path: Field required\nunknown key evaluation.0.pat; did you mean path"),
        ({"path": "x.jsonl", "response": None}, "evaluation.0: x.jsonl has no response to measure"),
        ({"path": "mean.jsonl"}, "evaluation.0.domain: no domain may be called mean"),
        ({"suite": "quick", "limits": 3}, "unknown key evaluation.0.limits; did you mean limit"),
        ({"suite": "quik"}, "There is no suite quik"),
        ("absent.jsonl", "absent.jsonl"),
        ("quik", "evaluation.0: there is no suite and no file quik; did you mean quick"),
        (
            "neither.yaml",
            "evaluation.0: neither.yaml is neither a run, which has a pivot, nor a suite, which has tasks",
        ),
        ("empty.jsonl", "empty.jsonl .* gives no example: no row is there"),
        ("damaged.jsonl", "damaged.jsonl, line 2, column 17: a text begins here and does not end"),
    ],
)
def test_what_cannot_be_measured_on_is_refused_with_the_entry_and_the_key(entry, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neither.yaml").write_text("a: 1")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "damaged.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "resp')
    if "suite" in entry:
        pytest.importorskip("lm_eval")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluations(entry)
