"""What is a secret in settings and what is none, and what is masked in texts. All secrets here are invented."""

import pytest

from fusion.core.secrets import MASK, hide, hide_lines, names_a_secret, read_key, refuse_secrets, secrets_in

MIXED = "q7Xw2LmPz9Kd4RtVb6Yh8NcJ5sGf3AeU1oTi0"
SECRETS = {
    "hub token": ({"training": {"hub_token": "abc"}}, "training.hub_token"),
    "hugging face": ({"pivot": {"revision": f"hf_{MIXED}"}}, "pivot.revision"),
    "inside a text": ({"system": f"Use hf_{MIXED} to log in."}, "system"),
    "openai": ({"a": f"sk-{MIXED}"}, "a"),
    "openai project": ({"a": f"sk-proj-{MIXED}-{MIXED}"}, "a"),
    "anthropic": ({"a": f"sk-ant-api03-{MIXED}-{MIXED}"}, "a"),
    "groq": ({"a": f"gsk_{MIXED}"}, "a"),
    "nvidia": ({"a": f"nvapi-{MIXED}"}, "a"),
    "google": ({"a": f"AIzaSy{MIXED}"}, "a"),
    "github": ({"a": f"ghp_{MIXED}"}, "a"),
    "github, fine": ({"a": f"github_pat_{MIXED}"}, "a"),
    "gitlab": ({"a": f"glpat-{MIXED[:20]}"}, "a"),
    "aws": ({"a": "AKIAQ7XW2LMPZ9KD4RTV"}, "a"),
    "aws, by name": ({"aws_secret_access_key": "abc/def"}, "aws_secret_access_key"),
    "slack": ({"a": f"xoxb-123456789012-{MIXED}"}, "a"),
    "pypi": ({"a": f"pypi-AgEIcHlwaS5vcmc{MIXED}"}, "a"),
    "jwt": ({"a": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"}, "a"),
    "bearer": ({"a": f"Bearer {MIXED}"}, "a"),
    "basic": ({"a": "Basic am9lOnNlY3JldA=="}, "a"),
    "private key": ({"a": "-----BEGIN RSA PRIVATE KEY-----\nMIIE"}, "a"),
    "userinfo": ({"url": "https://joe:open@host/v1"}, "url"),
    "user alone": ({"url": "https://abc@host/v1"}, "url"),
    "userinfo, database": ({"path": "postgres://joe:open@host/v1"}, "path"),
    "query": ({"url": "https://host/v1?api-key=abc"}, "url"),
    "query, signature": ({"path": "https://host/a.jsonl?sv=2020-01-01&sig=abc"}, "path"),
    "query, amazon": ({"path": "https://host/a.jsonl?X-Amz-Signature=abc"}, "path"),
    "body": ({"sources": [{"backend": {"extra_body": {"api_key": "abc"}}}]}, "sources[0].backend.extra_body.api_key"),
    "deep in a body": ({"extra_body": {"auth": [{"x-api-key": "abc"}]}}, "extra_body.auth[0].x-api-key"),
    "camel case": ({"apiKey": "abc"}, "apiKey"),
    "authorization": ({"Authorization": "abc"}, "Authorization"),
    "password": ({"password": "correct horse"}, "password"),
    "digits": ({"password": 12345}, "password"),
    "random token": ({"token": MIXED}, "token"),
    "random key": ({"extra_body": {"key": "0123456789abcdef0e5a7c9b1d3f5e7a"}}, "extra_body.key"),
    "a key for a variable's name": ({"api_key_env": "d41e8cd98f00b204e9800998ecf8427e"}, "api_key_env"),
    "values of a grid": ({"grid": {"training.hub_token": ["abc", None]}}, "grid.training.hub_token[0]"),
    "list": (["a", f"hf_{MIXED}"], "[1]"),
    "column": ({"where": {"id": f"hf_{MIXED}"}}, "where.id"),
    "as a key": ({f"hf_{MIXED}": 1}, "a key of it"),
}  # fmt: skip
INNOCENT = [
    *({name: value} for name in ("token", "pad_token", "eos_token", "bos_token", "unk_token", "mask_token", "user_token",
                                 "image_token", "next_token", "key", "sort_key", "session", "auth")
      for value in ("<|endoftext|>", "<s>", "the", "[UNK]", "</s>", "a-word", "token_2024_alpha_beta9")),
    {"tokenizer": "org/model-7b-v0.1"}, {"tokens": "abc"}, {"max_tokens": 100}, {"min_tokens": 100_000}, {"per_token": "x"},
    {"stop_token_ids": [1, 2]}, {"return_tokens_as_token_ids": True}, {"hub_token": None}, {"hub_token": ""},
    {"password": True}, {"api_key_env": "MY_KEY"}, {"api_key_env": "AZURE_OPENAI_API_KEY_2024"}, {"secretary": "Jo"},
    {"where": {"token": "the", "password": "open", "secret": "x", "api_key": "none"}}, {"shots": {"secret": "Q: a\nA: b\n"}},
    {"exact_match": ["secret", "password"]},
    {"where": {"password": ["abc"]}}, {"pad_token": ["abc"]}, {"domain": "password"}, {"prompt": "{token} {password}"},
    {"path": "Qwen/Qwen2.5-Coder-0.5B-Instruct"}, {"path": "s3://bucket@point/y"}, {"path": "ssh://git@host/x"},
    {"path": "/data/hf_models/tiny-random-model-for-testing"}, {"path": "runs/sk-learn-classifier-2024-results"},
    {"path": "https://host/a.jsonl?download=true&rev=2"}, {"url": "http://localhost:8000/v1"}, {"url": "http://[::1]:8000/v1"},
    {"revision": "9b2c1e0f3a4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f"}, {"key": "shard-00001-of-00003"}, {"key": "model-7b-v0.1-2024"},
    {"key": "model.layers.12.mlp.down_proj.weight"}, {"answer_prefix": "Basic arithmetic:"},
    {"stop": ["Token 1\n", "Bearer of"]},
    {"system": "Send the header Authorization: Bearer TOKEN. Your password: ask it."},
    {"name": "hf_small"}, {"name": "sk-test"},
]  # fmt: skip


@pytest.mark.parametrize(("settings", "place"), SECRETS.values(), ids=SECRETS)
def test_a_secret_is_found_where_it_stands_and_not_shown(settings, place):
    assert [secret.place for secret in secrets_in(settings)] == [place]
    with pytest.raises(ValueError, match=r"^No secret may stand in settings") as caught:
        refuse_secrets(settings)
    for shown in (
        "abc",
        "open",
        "joe",
        "horse",
        "12345",
        MIXED[:8],
        "d41e8cd9",
        "c2lnbmF0",
        "MIIE",
        "9KD4RTV",
        "012345",
    ):
        assert shown not in str(caught.value)


@pytest.mark.parametrize("settings", INNOCENT, ids=range(len(INNOCENT)))
def test_what_only_looks_like_a_secret_is_none(settings):
    assert list(secrets_in(settings)) == []


@pytest.mark.parametrize(("settings", "way_out"), [
    ({"training": {"hub_token": "abc"}}, "export it as HF_TOKEN"),
    ({"a": f"hf_{MIXED}"}, "export it as HF_TOKEN"),
    ({"wandb_api_key": MIXED}, "export it as WANDB_API_KEY"),
    ({"a": "AKIAQ7XW2LMPZ9KD4RTV"}, "export it as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ({"backend": {"extra_body": {"api_key": "abc"}}}, "name the environment variable that holds it in backend.api_key_env"),
    ({"a": "https://joe:open@host/x"}, "export it as an environment variable of the program that needs it"),
])  # fmt: skip
def test_the_way_out_is_an_environment_variable(settings, way_out):
    with pytest.raises(ValueError, match=rf"and {way_out}\.$"):
        refuse_secrets(settings)


def test_all_secrets_are_said_at_once():
    with pytest.raises(ValueError, match=r"checkpoints: a\.hub_token \(.*\), b\[0\]\.url \(.*\)\. Take"):
        refuse_secrets({"a": {"hub_token": "abc"}, "b": [{"url": "https://h/?key=abc"}]})


@pytest.mark.parametrize(
    "name", ["api_key", "hub_token", "HF_TOKEN", "X-Api-Key", "clientSecret", "password", "AUTH_TOKEN"]
)
def test_names_that_only_secrets_have(name):
    assert names_a_secret(name)


@pytest.mark.parametrize(("text", "masked"), [
    (f"401: hf_{MIXED} is no key", f"401: {MASK} is no key"),
    ("https://joe:open@host/x?key=abc&n=2 failed", f"https://{MASK}@host/x?key={MASK}&n=2 failed"),
    ("--set a.api_key=abc: no entry a", f"--set a.api_key={MASK}: no entry a"),
    ("training.hub_token: must be a text", "training.hub_token: must be a text"),
    ("pad_token=a must be below max_tokens=5, key=b", "pad_token=a must be below max_tokens=5, key=b"),
])  # fmt: skip
def test_what_is_masked_in_a_message(text, masked):
    assert hide(text) == masked


def test_values_of_the_environment_are_masked_by_the_names_of_their_variables(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_API_KEY", "plain/words")
    monkeypatch.setenv("MY_TOKENIZER", "plain/model")
    assert hide("plain/words plain%2Fwords plain\\/words plain/model") == f"{MASK} {MASK} {MASK} plain/model"
    assert hide("by argument", "argument") == f"by {MASK}"


def test_a_password_of_a_proxy_is_masked_though_a_library_cut_it(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://joe:pa/ss9word@proxy:80")
    assert hide("nonnumeric port: 'pa' of ss9word@proxy:80") == f"nonnumeric port: '{MASK}' of {MASK}@proxy:80"


def test_an_excerpt_of_a_file_shows_no_value_behind_a_secrets_name():
    assert hide_lines('  in line 3\n  hub_token: "ab\n   ^') == f"  in line 3\n  hub_token: {MASK}\n   ^"


def test_a_key_is_read_without_the_line_break_of_its_file(monkeypatch):
    monkeypatch.setenv("MY_KEY", " abc\r\n")
    assert read_key("MY_KEY") == "abc"


@pytest.mark.parametrize(("key", "said"), [
    ("", "is not set"), ("\n", "is not set"), ("ab\ncd", "holds line breaks"), ("ab cd", "holds line breaks"), ("abé", "holds"),
])  # fmt: skip
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch, key, said):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ValueError, match=rf"names MY_KEY, which {said}") as caught:
        read_key("MY_KEY")
    assert "ab" not in str(caught.value)


def test_a_place_that_is_here_is_no_secret_whatever_its_variable_is_called(monkeypatch, tmp_path):
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("MY_SECRET", "/no/such/place")
    assert hide(f"{tmp_path}/models and /no/such/place") == f"{tmp_path}/models and ***"
