"""The check of a GPU at tiny size on a CPU: what it refuses, writes and returns. No test looks at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fusion.config import loading
from fusion.models.loading import ModelRef, load_tokenizer, vocabulary_size
from gpu_checks import quickstart, runner, shapes
from gpu_checks.check import Check, CheckContext
from gpu_checks.precision import MODES, configuration

ROOT = Path(__file__).parents[2]


def checks(file):
    """The checks in a file, by name."""
    return {check["name"]: check for check in json.loads(file.read_text())["checks"]}


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Runs groups of checks of our own in the place of the real ones; what was written, and the exit code."""

    def run(**functions):
        module = type(sys)("gpu_checks.of_the_test")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(runner, "GROUPS", {name: f"{module.__name__}:{name}" for name in functions})
        file = tmp_path / "out.json"
        code = runner.main(["--tiny", "--out", str(file)])
        return json.loads(file.read_text()), code

    return run


def test_without_a_gpu_the_full_size_is_refused_with_the_way_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        runner.main(["--out", str(tmp_path / "out.json")])
    assert stopped.value.code == 2
    assert "finds no GPU" in (said := capsys.readouterr().err)
    assert "add --tiny" in said
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_does_not_exist_is_refused_with_those_that_do(capsys, tmp_path):
    with pytest.raises(SystemExit):
        runner.main(["speed", "--tiny", "--out", str(tmp_path / "out.json")])
    assert "there is no group speed; there are models, mixed, pure, steps" in capsys.readouterr().err


def test_a_group_that_raises_is_recorded_and_the_others_go_on(groups, capsys):
    def broken(context):
        yield Check("before", 1.0)
        raise RuntimeError("the kernel is missing")

    def sound(context):
        yield Check("after", 2.0, at_most=3.0)

    written, code = groups(broken=broken, sound=sound)
    before, failed, after = written["checks"]
    assert (code, written["ok"], written["finished"]) == (1, False, True)
    assert [check["ok"] for check in (before, failed, after)] == [True, False, True]
    assert failed["name"] == "broken: to its end"
    assert failed["error"] == "RuntimeError: the kernel is missing"
    assert "raise RuntimeError" in failed["traceback"]
    assert "Something failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        (Check("a", 1.0), True),
        (Check("a", 1.0, at_least=1, at_most=1), True),
        (Check("a", 0.9, at_least=1), False),
        (Check("a", 1.1, at_most=1), False),
        (Check("a", float("nan")), False),
        (Check("a", float("inf"), at_least=1), False),
        (Check("a", None, error="no"), False),
    ],
)
def test_a_check_is_well_only_within_its_bounds(check, ok, groups):
    written, code = groups(one=lambda context: iter([check]))
    assert written["checks"][0]["ok"] is ok
    assert code == (0 if ok else 1)


def test_what_was_measured_is_on_disk_before_the_next_check_begins(groups, tmp_path):
    def two(context):
        yield Check("first", 1.0)
        now = json.loads((tmp_path / "out.json").read_text())
        assert [check["name"] for check in now["checks"]] == ["first"]
        assert not now["finished"]
        yield Check("second", 2.0)

    assert groups(two=two)[1] == 0


def test_the_script_runs_from_anywhere_and_writes_machine_versions_and_checks(tmp_path):
    file = tmp_path / "out.json"
    words = [sys.executable, str(ROOT / "launch" / "gpu_check.py"), "models", "memory", "--tiny", "--out", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    written, found = json.loads(file.read_text()), checks(file)
    assert written["versions"]["torch"] == torch.__version__
    assert written["machine"]["cores"] == os.cpu_count()
    assert [written[name] for name in ("tiny", "finished", "ok")] == [True, True, True]
    assert found["qwen2: largest logit of a position, smallest"]["value"] >= 30
    assert found["peak of the loss, naive / ours"]["value"] > 1
    assert "All is well" in done.stdout


def test_the_tokenizers_have_exactly_the_tokens_of_the_shapes_and_other_borders(tmp_path):
    context = CheckContext(tmp_path, "cpu", tiny=True)
    folders = [shapes.model_folder(context, name) for name in shapes.SHAPES]
    tokenizers = [load_tokenizer(ModelRef(str(folder))) for folder in folders]
    assert [vocabulary_size(each) for each in tokenizers] == [1024, 2000]
    large = [shapes.byte_tokenizer(shape.tokens, shape.pair_first) for shape in shapes.SHAPES.values()]
    assert [vocabulary_size(each) for each in large] == [49_152, 151_665]
    text = "the internationalization of naïve 数 42"
    one, other = ([each.decode(token) for token in each(text).input_ids] for each in large)
    assert one != other
    assert [each.decode(each(text).input_ids) for each in large] == [text, text]


def test_the_shapes_are_those_of_the_models_they_stand_for():
    counts = {"llama": 134_515_008, "qwen2": 494_032_768}  # as their model cards and `num_parameters` give them
    with torch.device("meta"):
        for name, shape in shapes.SHAPES.items():
            config = shapes.AutoConfig.for_model(**shape.config, tie_word_embeddings=True)
            assert shapes.AutoModelForCausalLM.from_config(config).num_parameters() == counts[name]


def test_the_runs_differ_in_their_precision_alone(tmp_path):
    context = CheckContext(tmp_path, "cpu", tiny=True)
    dumps = {mode: loading.parse(configuration(context, mode), mode) for mode in MODES}
    assert [(each.dtype, each.training.get("bf16", False), each.extract.dtype) for each in dumps.values()] == [
        ("float32", False, "float32"), ("float32", True, "bfloat16"), ("bfloat16", False, "bfloat16"),
    ]  # fmt: skip
    same = ("data", "objectives", "pivot", "sources", "evaluation", "seed")
    assert all(getattr(each, name) == getattr(dumps["float32"], name) for each in dumps.values() for name in same)


def test_the_published_table_is_found_and_read():
    means = quickstart.published_means(quickstart.PUBLISHED.read_text())
    assert list(means) == ["pivot", "numbers", "lumi", "storyteller", "fine-tuned", "unified"]
    assert means["pivot"] == {"exact_match": 54.3, "bits_per_byte": 0.197}
    assert means["unified"]["exact_match"] - means["fine-tuned"]["exact_match"] > quickstart.GAIN_BOUND


def test_a_page_without_the_table_is_refused():
    with pytest.raises(ValueError, match="there is no table with the columns mean exact match"):
        quickstart.published_means("# Results\n\n## Quickstart: words\n\nNo table.\n\n## Next\n\n| a |\n")


@pytest.mark.slow
def test_everything_runs_at_tiny_size_and_is_well(tmp_path):
    file = tmp_path / "out.json"
    assert runner.main(["--tiny", "--out", str(file)]) == 0
    found = checks(file)
    begins = ("llama", "mixed", "pure", "qwen2", "peak of the loss", "quickstart")
    assert all(any(name.startswith(begin) for name in found) for begin in begins)
    assert found["llama: bits of what the output layer computes in mixed precision"]["value"] == 16
    assert 0 < found["pure: loss of unified, largest relative difference of a step"]["value"] <= 0.03
