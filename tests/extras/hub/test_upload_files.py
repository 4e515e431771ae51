"""What of a run or a merged model is uploaded, and what is refused before anybody is asked for anything."""

import json

import pytest
import torch
from safetensors.torch import save_file

import fusion
from fusion.extras.hub.upload_files import collect_files
from tests.helpers import runs, tiny
from tests.helpers.finished_runs import PUSHED, finished_run, mark_fused

KEY = "hf_Zk39Qw7XmPtRvYbNcJsGfAeUoTiLd"


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path / "run")


def test_the_model_its_card_and_the_report_go_and_all_else_stays(run):
    files = collect_files(run)
    assert files.paths.keys() == PUSHED
    assert files.left == ("notes.txt", "training_args.bin")
    assert files.sizes["report.html"] == len("<html>a report</html>\n")


def test_the_report_stays_where_it_is_not_wanted_or_the_model_alone_is_given(run):
    alone = {name for name in PUSHED if not name.startswith("report")}
    assert collect_files(run, report=False).paths.keys() == alone
    assert collect_files(run / "fused").paths.keys() == alone


def test_a_merged_model_goes_without_the_record_that_names_folders_of_this_machine(tmp_path):
    base, other = tiny.folder("llama", tmp_path / "base"), tiny.folder("llama", tmp_path / "other", seed=1)
    merged = fusion.merge("linear", None, {str(base): 0.5, str(other): 0.5}, tmp_path / "merged")
    files = collect_files(merged)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.paths.keys()
    assert files.left == ("merge.json", "recipe.yaml")
    weights = merged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(
        FileExistsError, match=r"merged was merged .*, but model\.safetensors is gone or changed; remove"
    ):
        collect_files(merged)


def test_a_dry_run_lists_files_and_asks_for_no_token(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    pushed = fusion.push(run, "me/small", dry_run=True)
    assert (pushed.url, pushed.files) == (None, collect_files(run).sizes)


def test_what_a_run_returned_is_taken_as_its_folder_is(tmp_path):
    made = fusion.Run(runs.config(tmp_path))
    folder = finished_run(made.folder)
    assert fusion.push(made, "me/small", dry_run=True) == fusion.push(str(folder), "me/small", dry_run=True)


def test_damaged_weights_are_refused(run):
    weights = run / "fused/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match=r"fused is not what was written: .*model\.safetensors"):
        collect_files(run)


def test_weights_that_no_run_has_written_are_refused(run):
    save_file({"a": torch.ones(1)}, run / "fused/adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"fused holds adapter_model\.safetensors, which nothing of ours"):
        collect_files(run)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("fused/fusion.json", r"run has no fused model yet: run `fusion run .*/run/config\.yaml` to its end"),
        ("report.html", r"run has no report\.html yet.* or push .*/run/fused alone"),
        ("fused/README.md", r"fused lacks README\.md: run or merge again"),
        ("fused/config.json", r"fused lacks config\.json"),
        ("fused/tokenizer.json", r"fused lacks a tokenizer"),
    ],
)
def test_what_is_not_finished_is_refused(run, gone, message):
    (run / gone).unlink()
    with pytest.raises(ValueError, match=message):
        collect_files(run)


def test_any_other_folder_is_refused(tmp_path):
    tiny.folder("llama", tmp_path / "mine")
    with pytest.raises(
        ValueError, match="mine is neither a run nor a merged model: .* any other is uploaded by `hf upload`"
    ):
        collect_files(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        collect_files(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("fused/README.md", f"one\ntwo {KEY}\n", r"README\.md, line 2 \(a token of Hugging Face\)"),
        ("report.html", "\n\n<p>http://joe:opensesame@host/</p>", r"report\.html, line 3 \(a password in an address\)"),
        ("fused/chat_template.jinja", "{# api_key: 0e5a7c9b1d3f5e7a0e5a #}", r"chat_template\.jinja, line 1 \(a random value"),
        ("fused/tokenizer_config.json", '{"hub_token": "opensesame"}', r"tokenizer_config\.json, hub_token \(a secret by"),
        ("fused/README.md", "the server says a/server's-key", r"README\.md, line 1 \(a secret of the environment\)"),
    ],
)  # fmt: skip
def test_a_file_with_a_secret_is_refused_with_its_line_and_without_the_secret(run, monkeypatch, name, text, place):
    monkeypatch.setenv("MY_API_KEY", "a/server's-key")
    (run / name).write_text(text)
    with pytest.raises(ValueError, match=rf"Nothing was uploaded, for these hold a secret: \S*/{place}") as refused:
        collect_files(run)
    assert not [part for part in (KEY, "opensesame", "0e5a7c9b", "a/server") if part in str(refused.value)]


def test_texts_that_only_speak_of_tokens_and_keys_are_no_secrets(run):
    (run / "report.html").write_text(
        "max_tokens: 100, pad_token=<pad>, key: value, password = getpass.getpass()\n"
        "https://huggingface.co/me/x?private=1 git@github.com:me/x ssh://git@github.com/me/x sk-learn hf_hub_download\n"
        "api_key: your-key-goes-here-123, secret=sha256\n"
    )
    vocabulary = json.loads((run / "fused/tokenizer.json").read_text())
    vocabulary["extra"] = {"api_key": 12345, "password": 54321}
    (run / "fused/tokenizer.json").write_text(json.dumps(vocabulary))
    assert collect_files(run).paths.keys() == PUSHED


def test_a_model_that_was_made_anew_is_taken(run):
    save_file({"a": torch.ones(1)}, run / "fused/model.safetensors")
    mark_fused(run / "fused")
    assert collect_files(run).paths.keys() == PUSHED
