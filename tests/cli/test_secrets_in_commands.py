"""A secret in a file or on a command line is refused by every command, and none of what they print shows it."""

import sys

import pytest
import yaml

from fusion import cli
from fusion.config import loading, recipes
from fusion.core.settings import Settings
from tests.config.test_config import GOOD

SECRET = "q7Xw2LmPz9Kd4RtVb6Yh8NcJ5sGf3AeU1oTi0"
PART = SECRET[:8]
"""No message may show this much of it."""


@pytest.fixture
def said(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; return its exit status and all that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fusion", *words])
        status = cli.run()
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def file_of(folder, raw):
    (folder / "run.yaml").write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
    return "run.yaml"


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"training": {"hub_token": SECRET}}, "training.hub_token"),
        ({"training": {"run_name": f"hf_{SECRET}"}}, "training.run_name"),
        ({"training": {"report_to": ["tensorboard", f"hf_{SECRET}"]}}, "training.report_to[1]"),
        ({"pivot": {"path": f"https://joe:{SECRET}@host/model"}}, "pivot.path"),
        ({"pivot": {"path": "a/b", "chat_template_kwargs": {"key": SECRET}}}, "pivot.chat_template_kwargs.key"),
        ({"store": f"s3://AKIAQ7XW2LMPZ9KD4RTV:{SECRET}@store"}, "store"),
        ({"unknown": f"sk-{SECRET}"}, "unknown"),
    ],
)
def test_a_run_with_a_secret_is_refused_by_place(said, tmp_path, part, place):
    status, text = said("run", file_of(tmp_path, GOOD | part))
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith("Error: run.yaml: No secret may stand in settings")
    assert f": {place} (" in text
    assert PART not in text
    assert [file.name for file in tmp_path.iterdir()] == ["run.yaml"]  # nothing was kept


@pytest.mark.parametrize("place", ["url", "extra_body"])
def test_a_servers_key_is_to_be_named_by_its_variable(said, tmp_path, place):
    server = {"kind": "openai", "url": "http://here/v1", "model": "m"}
    server |= (
        {"url": f"http://here/v1?key={SECRET}"} if place == "url" else {"extra_body": {"auth": {"api_key": SECRET}}}
    )
    sources = [{"name": "one", "path": "some/source", "backend": server}]
    status, text = said("plan", file_of(tmp_path, GOOD | {"sources": sources}))
    assert status == 1
    assert f"sources[0].backend.{place}" in text
    assert "name the environment variable that holds it in backend.api_key_env" in text
    assert PART not in text


@pytest.mark.parametrize(
    "words",
    [
        ["run", "quickstart", "--set", f"training.hub_token={SECRET}"],
        ["run", "quickstart", "--set", f"nowhere.0.api_key={SECRET}"],
        ["run", "quickstart", "--set", f"name.x.api_key={SECRET}"],
        ["run", "quickstart", "--set", f"api_key:{SECRET},hf_{SECRET}"],
        ["run", "quickstart", "--set", f"seed=hf_{SECRET}"],
        ["run", f"https://joe:{SECRET}@host/run.yaml"],
        ["launch", "quickstart", "--on", "slurm", "--dry-run", "--option", f"comment=hf_{SECRET}"],
        [
            "launch",
            "quickstart",
            "--on",
            "kubernetes",
            "--dry-run",
            "--option",
            f"image=https://joe:{SECRET}@host/image",
        ],
        ["merge", "--method", "linear", f"https://joe:{SECRET}@host/a", "b", "--out", "c"],
        ["merge", "--method", "linear", "a", "b", "--set", f"weight=hf_{SECRET}", "--out", "c"],
        ["benchmark", f"a=https://joe:{SECRET}@host/a", "--suite", "quick"],
        ["study", f"https://joe:{SECRET}@host/study.yaml"],
        ["draft", "model", "--data", "a.jsonl", "--out", "b", "--set", f"learning_rate=hf_{SECRET}"],
        ["report", f"https://joe:{SECRET}@host/run"],
    ],
    ids=lambda words: f"{words[0]} {len(words)}",
)
def test_no_command_shows_a_secret_of_its_words(said, words, tmp_path):
    status, text = said(*words)
    assert status != 0
    assert PART not in "".join(text.split())
    assert list(tmp_path.iterdir()) == []


def test_a_secret_in_a_file_that_is_not_yaml_is_not_shown(said, tmp_path):
    for line in (f'hub_token: "{SECRET}', f"hub_token: {SECRET}: [", f"a: 'hf_{SECRET}"):
        status, text = said("run", file_of(tmp_path, line))
        assert status == 1
        assert "run.yaml is not valid YAML" in text
        assert PART not in text


def test_the_traceback_of_a_bug_shows_no_secret(said, monkeypatch):
    def fail():
        raise KeyError(f"Authorization: Bearer {SECRET} of hf_{SECRET}")

    monkeypatch.setenv("MY_API_KEY", SECRET)
    monkeypatch.setattr(recipes, "recipes", fail)
    status, text = said("recipes")
    assert (status, "Traceback" in text, PART in text) == (1, True, False)


def test_the_traceback_that_is_asked_for_shows_no_secret(said, monkeypatch):
    monkeypatch.setenv("FUSION_TRACEBACK", "1")
    status, text = said("run", f"https://joe:{SECRET}@host/run.yaml")
    assert (status, "Traceback" in text, PART in text) == (1, True, False)


def test_errors_of_settings_show_no_values_to_those_who_print_them_from_python():
    class Mine(Settings):
        number: int

    with pytest.raises(ValueError, match="number") as caught:
        Mine.model_validate({"number": f"no-number-{SECRET}"})
    assert PART not in str(caught.value)
    with pytest.raises(loading.ConfigError, match=r"--set name\.x\.api_key=\*\*\*: x is not inside") as caught:
        loading.override({"name": "a"}, f"name.x.api_key={SECRET}")
    assert PART not in str(caught.value)
    with pytest.raises(loading.ConfigError) as caught:
        loading.parse(GOOD | {"seed": f"hf_{SECRET}"}, "x")
    assert PART not in str(caught.value)
