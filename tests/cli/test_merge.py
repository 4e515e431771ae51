"""The validation data of `fusion merge`: which are refused before anything is merged."""

import json

import pytest

from fusion.cli.merge import validation_examples
from fusion.merging.recipes.search_settings import WeightSearch


def write_rows(file, prompts):
    file.write_text("\n".join(json.dumps({"prompt": prompt, "response": "yes"}) for prompt in prompts))
    return {"path": str(file)}


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
        ({"path": "x.jsonl", "promt": "{a}"}, "search.validation.promt: Extra inputs are not permitted"),
    ],
)
def test_validation_data_that_are_a_test_split_or_have_unknown_keys_are_refused(validation, message):
    with pytest.raises(ValueError, match=message):
        validation_examples(WeightSearch(validation=validation))
