"""Models as they are named on the command line, and what they are compared with. See also tests/cli/test_benchmark.py."""

import pytest

from fusion.models.loading import ModelRef
from fusion_eval.runners.benchmark import Comparisons, check_comparisons, parse_models


def test_a_model_is_named_by_what_stands_before_the_sign_or_by_its_path(tmp_path):
    (tmp_path / "lr=3").mkdir()
    models = parse_models(["pivot=org/model", "org/other", "some/file.Q4.gguf", str(tmp_path / "lr=3")])
    assert {name: ref.path for name, ref in models.items()} == {
        "pivot": "org/model", "other": "org/other", "file.Q4": "some/file.Q4.gguf", "lr=3": str(tmp_path / "lr=3"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("comparisons", "message"),
    [
        (Comparisons(guard=["a", "x", "b"]), "--guard x,b: no such model to compare b with; there are a."),
        (Comparisons(baseline="b"), "--baseline b: no such model"),
    ],
)
def test_the_last_model_is_compared_with_those_before_it(comparisons, message):
    with pytest.raises(ValueError, match=message):
        check_comparisons({"a": ModelRef("org/a"), "b": ModelRef("org/b")}, comparisons)
