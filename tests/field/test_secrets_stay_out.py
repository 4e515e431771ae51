"""A run whose environment is full of secrets: nothing that it writes, prints or raises holds one of them."""

import base64
import json
import subprocess
import sys
from urllib.parse import quote

import pytest
import yaml

import fusion
from fusion import pipeline
from fusion.cli import boundary
from fusion.training import fit
from tests.helpers import runs, serving, tiny

SECRETS = {
    "HF_TOKEN": "hf_q7XwLmPzKdRtVbYhNcJsGfAeUoTiWx",
    "WANDB_API_KEY": "0e5a7c9b1d3f5e7a0e5a7c9b1d3f5e7a0e5a7c9b",
    "MY_KEY": "a/server's-key+with=signs",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCY",
    "https_proxy": "http://joe:opensesame@127.0.0.1:9",
}
VALUES = ["opensesame" if name.endswith("proxy") else value for name, value in SECRETS.items()]


def forms(secret):
    """How a file may hold a secret."""
    raw = secret.encode()
    escaped = json.dumps(secret)[1:-1].encode(), secret.replace("'", "&#39;").encode(), quote(secret, safe="").encode()
    return {raw, *escaped, base64.b64encode(raw).rstrip(b"=")[:-1], raw.decode().encode("utf-16-le")}


def holding(folder, wanted):
    """Files of a folder that hold any of the texts; all files are read, whatever they are."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file.relative_to(folder)) for file in files if any(text in file.read_bytes() for text in wanted)]


def served(folder, url):
    raw = runs.raw(
        folder,
        objectives=[{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}],
        evaluation={"original_models": False},
        baseline=False,
    )
    tiny.TOKENIZERS["qwen2"](tiny.TEXTS).save_pretrained(folder / "tokenizer")
    backend = {"kind": "openai", "url": url, "model": "big", "logprobs_api": "prompt_logprobs", "api_key_env": "MY_KEY"}
    raw["sources"][1] = {"name": "qwen", "path": str(folder / "tokenizer"), "backend": backend}
    return raw


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of a run that has ended, what it printed, and what it raised while the server was down."""
    folder = tmp_path_factory.mktemp("secrets")
    runs.models(folder)
    server, patch = serving.Server(folder / "qwen"), pytest.MonkeyPatch()
    with patch.context() as environment, serving.serve(server) as url:
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        raw = served(folder, url)
        (folder / "run.yaml").write_text(yaml.safe_dump(raw))
        server.key = "another"  # so that the server answers with the key that it was sent
        with pytest.raises(ValueError, match="status 401") as refused:
            pipeline.run(runs.loading.parse(raw | {"name": "refused"}, "test"), until="extract")
        server.key = SECRETS["MY_KEY"]
        command = [sys.executable, "-m", "fusion", "run", str(folder / "run.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {seen["key"] for seen in server.seen} == {f"Bearer {SECRETS['MY_KEY']}"}
    return folder, done.stdout + done.stderr, refused.value


@pytest.mark.parametrize("secret", VALUES, ids=list(SECRETS))
def test_no_file_of_a_run_holds_a_secret_of_its_environment(ended, secret):
    folder, *_ = ended
    assert holding(folder, forms(secret)) == []


def test_what_is_searched_are_all_files_that_a_run_writes(ended):
    folder, *_ = ended
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    written = {
        "key.json",
        "config.yaml",
        "run.json",
        "report.html",
        "README.md",
        "training_args.bin",
        "trainer_state.json",
    }
    assert written <= names
    assert [name for name in names if name.startswith("events.out.tfevents")]
    found = holding(folder, {b"small"})  # the name of the run, which is no secret
    assert {"runs/small/config.yaml", "runs/small/fused/README.md"} <= set(found)
    assert [name for name in found if name.endswith("training_args.bin")]


def test_what_would_be_uploaded_of_it_is_the_model_its_card_and_the_report(ended, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    folder, *_ = ended
    pushed = fusion.push(folder / "runs/small", "me/small", dry_run=True)
    names = {name for name in pushed.files if not name.startswith("report/")}
    model = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names - {"chat_template.jinja"} == model | {"README.md", "fusion.json", "report.html"}
    assert {name.rpartition(".")[2] for name in pushed.files.keys() - names} == {"png"}
    assert pushed.left == ()


@pytest.mark.parametrize("secret", VALUES, ids=list(SECRETS))
def test_nothing_that_a_run_prints_or_raises_holds_a_secret(ended, secret):
    _, printed, raised = ended
    assert "bits per byte" in printed
    for text in (printed, str(raised), repr(raised), boundary.user_message(raised) or ""):
        assert not [form for form in forms(secret) if form in text.encode()]


def test_a_secret_for_trainer_is_refused_from_python_too(tmp_path):
    with pytest.raises(
        ValueError, match=r"^No secret may stand in settings.*: training\.hub_token .*export it as HF_TOKEN"
    ):
        fit.training_arguments({"hub_token": "abc"}, tmp_path, 0)
