"""An upload, against a hub on this machine: what arrives, who sees the token, and what is said when it goes wrong."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

import fusion
from fusion.cli import boundary
from tests.helpers import hub_double
from tests.helpers.finished_runs import PUSHED, finished_run
from tests.helpers.hub_double import TOKEN, Branch, Hub, Repo


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("push") / "small")


@pytest.fixture
def hub(monkeypatch):
    """A hub that huggingface_hub takes for the one it knows; waiting between its tries takes no time."""
    for name, value in {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    close_session()
    double = Hub()
    with hub_double.serve(double) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        yield double
    close_session()


def contents(run):
    fused = {name: run / "fused" / name for name in PUSHED if not name.startswith("report")}
    paths = fused | {name: run / name for name in PUSHED if name.startswith("report")}
    return {name: path.read_bytes() for name, path in paths.items()}


def sent_token(seen):
    """Whether a request holds the token outside its header for it."""
    return TOKEN.encode() in seen["body"] or TOKEN in f"{seen['what']} {seen['query']} {seen['headers']}"


def said(run, *arguments, **options):
    """What a user reads of an upload that fails."""
    with pytest.raises((ValueError, OSError)) as raised:
        fusion.push(run, *arguments, **options)
    message = boundary.user_message(raised.value)
    assert message is not None
    assert TOKEN not in f"{message} {raised.value!r}"
    return message


def test_the_command_uploads_model_card_and_report_in_one_commit_and_asks_nobody_else(run):
    hub, elsewhere = Hub(), Hub()
    with hub_double.serve(hub) as url, hub_double.serve(elsewhere) as proxy:
        proxies = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
        clean = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
        settings = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "fusion", "push", str(run), "me/small", "--message", "the first"]
        done = subprocess.run(command, env=clean | proxies | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert hub.files("me/small") == contents(run) | {".gitattributes": b"x"}
    assert hub.repos["me/small"].branches["main"].commits == ["initial commit", "the first"]
    assert not hub.repos["me/small"].private
    assert elsewhere.seen == []
    assert f"{url}/me/small: 9 files" in done.stdout
    assert "left here: notes.txt, training_args.bin" in done.stdout
    assert "model.safetensors" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert not [seen["what"] for seen in hub.seen if sent_token(seen)]
    assert [seen["what"] for seen in hub.asked("/api/models/me") if seen["authorization"] != f"Bearer {TOKEN}"] == []
    assert len(hub.asked("PUT /storage/")) == 2
    assert {seen["authorization"] for seen in hub.asked("PUT /storage/")} == {None}


def test_a_second_upload_sends_no_large_file_again_and_says_what_it_replaced(hub, run, tmp_path):
    fusion.push(run, "me/small")
    hub.files("me/small")["README.md"] = b"edited there"
    hub.files("me/small")["discussion.md"] = b"theirs"
    parent = hub.repos["me/small"].branches["main"].sha
    pushed = fusion.push(run, "me/small")
    assert json.loads(hub.asked("/commit/")[-1]["body"].splitlines()[0])["value"]["parentCommit"] == parent
    assert (pushed.replaced, pushed.kept, pushed.deleted) == (("README.md",), ("discussion.md",), ())
    assert len(hub.asked("PUT /storage/")) == 2
    assert hub.files("me/small")["discussion.md"] == b"theirs"
    assert hub.files("me/small")["README.md"] == contents(run)["README.md"]


def test_a_new_repository_is_private_where_that_is_asked_for(hub, run):
    fusion.push(run, "me/small", private=True)
    assert hub.repos["me/small"].private
    fusion.push(run, "me/small", private=True)
    hub.repos["me/open"] = Repo()
    assert "me/open exists and is public; --private is for new repositories" in said(run, "me/open", private=True)
    assert hub.files("me/open") == {".gitattributes": b"x"}


def test_a_branch_is_made_and_the_main_one_stays_as_it_is(hub, run):
    hub.repos["me/small"] = Repo(branches={"main": Branch({"README.md": b"main"})})
    pushed = fusion.push(run, "me/small", revision="v2/try")
    assert hub.files("me/small", "v2/try") == contents(run)
    assert hub.files("me/small") == {"README.md": b"main"}
    assert (pushed.url, pushed.replaced) == (f"{hub.url}/me/small/tree/v2/try", ("README.md",))
    assert "is a commit, which cannot change" in said(run, "me/small", revision="a" * 40)


def test_files_of_another_model_there_are_refused_or_deleted_where_that_is_said(hub, run):
    old = {"model-00001-of-00002.safetensors": b"old", "chat_template.jinja": b"old", "extra/notes.md": b"theirs"}
    hub.repos["me/small"] = Repo(branches={"main": Branch(old | {".gitattributes": b"x"})})
    message = said(run, "me/small")
    assert "holds chat_template.jinja, model-00001-of-00002.safetensors of another model" in message
    assert "--delete-others" in message
    assert hub.files("me/small") == old | {".gitattributes": b"x"}
    assert fusion.push(run, "me/small", delete_others=True).deleted == tuple(sorted(old))
    assert hub.files("me/small") == contents(run) | {".gitattributes": b"x"}


def test_what_the_repository_ignores_is_uploaded_all_the_same(hub, run):
    hub.repos["me/small"] = Repo(branches={"main": Branch({".gitignore": b"*"})})
    fusion.push(run, "me/small")
    assert hub.files("me/small") == contents(run) | {".gitignore": b"*"}


@pytest.mark.parametrize(
    "repo", ["small", "me/a/b", "https://huggingface.co/me/small", "me/", "me/a..b", "me/" + "a" * 96]
)
def test_a_name_that_no_hub_takes_is_refused_before_anything_is_asked(hub, run, repo):
    assert "is no name of a repository: give OWNER/NAME, such as my-org/my-model" in said(run, repo)
    assert hub.seen == []


def test_no_token_a_wrong_one_and_one_that_may_not_write_are_told_apart(hub, run, monkeypatch):
    assert "The token may not write to them/small on" in said(run, "them/small")
    hub.repos["them/small"] = Repo()
    assert "(403: You don't have the rights to write here)" in said(run, "them/small")
    hub.repos["me/small"] = Repo()
    hub.faults = {"POST /api/models/me/small/commit": [403]}
    assert "The token may not write to me/small" in said(run, "me/small")
    wrong = "hf_wrongXwLmPzKdRtVbYhNcJs12345"
    monkeypatch.setenv("HF_TOKEN", wrong)
    message = said(run, "me/small")
    assert "does not accept the token (401: Invalid username or password, got Bearer ***)" in message
    assert wrong not in message
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    hub.seen.clear()
    assert "There is no token to upload with. Export one with write access as HF_TOKEN" in said(run, "me/small")
    assert hub.seen == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"PUT /storage/": [None, *["hang up"] * 9]}, "The connection to"),
        ({"PUT /storage/": [None, *[500] * 9]}, "failed (500: told to answer 500). Run the same command again"),
        ({"POST /api/models/me/small/commit": [500]}, "failed (500: told to answer 500). Run the same command again"),
        ({"POST /api/models/me/small/commit": ["hang up"]}, "The connection to"),
        ({"POST /api/models/me/small/commit": [412]}, "me/small was changed by somebody else meanwhile"),
        ({"POST /api/models/me/small/preupload": [None, *[429] * 9]}, "failed (429: told to answer 429)"),
        ({"objects/batch": [400]}, "does not take this for me/small (400: told to answer 400)"),
    ],
)
def test_what_fails_in_the_middle_changes_nothing_there_and_goes_on_where_it_stopped(hub, run, fault, told):
    hub.faults = fault
    message = said(run, "me/small")
    assert told in message
    assert hub.files("me/small") == {".gitattributes": b"x"}
    arrived = len(hub.stored)
    hub.faults, hub.seen = {}, []
    fusion.push(run, "me/small")
    assert hub.files("me/small") == contents(run) | {".gitattributes": b"x"}
    assert len(hub.asked("PUT /storage/")) == 2 - arrived


def test_one_failure_of_the_storage_is_tried_again(hub, run):
    hub.faults = {"PUT /storage/": [503, "hang up"]}
    fusion.push(run, "me/small")
    assert hub.files("me/small") == contents(run) | {".gitattributes": b"x"}


@pytest.mark.parametrize(
    "where", ["GET /api/models", "POST /api/repos/create", "/preupload/", "/commit/", "PUT /storage/"]
)
def test_a_redirect_to_another_host_does_not_carry_the_token_there(hub, run, where):
    other = Hub()
    with hub_double.serve(other, "localhost") as elsewhere:
        hub.faults = {where: [elsewhere] * 9}
        said(run, "me/small")
    assert other.seen
    assert {seen["authorization"] for seen in other.seen} == {None}
    assert not [seen for seen in other.seen if TOKEN in json.dumps(seen, default=str)]


@pytest.mark.skipif(find_spec("hf_xet") is None, reason="large files go by Xet with hf-xet alone")
def test_by_xet_the_storage_gets_its_own_token_and_the_commit_names_the_right_contents(hub, run, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path))
    storage, other = hub_double.XetStorage(), Hub()
    with hub_double.serve(storage) as hub.xet_storage, hub_double.serve(other, "localhost") as elsewhere:
        hub.faults = {"xet-write-token": [elsewhere]}
        said(run, "me/small")
        assert {seen["authorization"] for seen in other.seen} == {None}
        hub.faults = {"xet-write-token": [403]}
        assert "The token may not write to me/small on" in said(run, "me/small")
        hub.faults = {}
        fusion.push(run, "me/small")
    for name in ("model.safetensors", "report/bars.png"):
        assert hub.files("me/small")[name] == hub_double.sha256(contents(run)[name]).encode()
    assert len(storage.asked("POST /v1/xorbs")) == 2
    assert {seen["authorization"] for seen in storage.seen} == {f"Bearer {hub_double.XET_TOKEN}"}
    assert not [seen["what"] for seen in (*hub.seen, *storage.seen) if sent_token(seen)]


def test_a_hub_that_is_not_there_or_may_not_be_asked_is_said(hub, run, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "The connection to http://127.0.0.1:9 failed (ConnectError" in said(run, "me/small")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so nothing is uploaded" in said(run, "me/small")


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("GET /api/models", b"<html>log in first</html>"),
        ("GET /api/models", b"[1]"),
        ("POST /api/repos/create", {}),
        ("/preupload/", {}),
        ("/commit/", {}),
        ("/commit/", b"<html>"),
    ],
)
def test_an_answer_that_is_no_hubs_is_said(hub, run, where, answer):
    hub.faults = {where: [answer]}
    assert hub.url in (message := said(run, "me/small"))
    assert "is not a hub's. Is HF_ENDPOINT right" in message or "preupload_info is improperly formatted" in message


def test_what_the_hub_says_of_a_card_is_passed_on(hub, run, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Invalid metadata in README.md.\n- license must be one of these")

    monkeypatch.setattr(huggingface_hub.HfApi, "_validate_yaml", refuse)
    assert "does not take this for me/small: Invalid metadata in README.md. - license" in said(run, "me/small")
