"""Secrets: refused in configurations, read from the environment, and masked in whatever is printed or raised.

What a configuration holds is copied into key.json, config.yaml, reports, model cards and checkpoints, so no secret may be in
one. The rules are few and for all settings alike: names that only secrets have, values that only secrets have, and random
values under names that a secret may have.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

MASK = "***"
LEAST = 8
"""Characters of a value in the environment from which on it is masked wherever it occurs."""
COLUMNS = {"where", "shots", "limit", "shares"}
"""Settings whose keys are names in the user's data, and say nothing of what is behind them."""

_START, _END = r"(?<![A-Za-z0-9_-])", r"(?![A-Za-z0-9])"
_FORMS: dict[str, tuple[str, str]] = {
    "a token of Hugging Face": (r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}", "HF_TOKEN"),
    "a key of an API": (
        r"sk-(?:[A-Za-z]+[0-9]*-)*(?=[A-Za-z_]*\d)[A-Za-z0-9_]{16,}[A-Za-z0-9_-]*"
        r"|(?:gsk|xai|nvapi|r8|tgp|pplx|csk|fw|key)[_-](?=[A-Za-z]*\d)[A-Za-z0-9]{24,}[A-Za-z0-9_-]*|AIza[A-Za-z0-9_-]{30,}",
        "",
    ),
    "a token of GitHub": (r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}", "GITHUB_TOKEN"),
    "a token of GitLab": (r"gl(?:pat|dt|rt|cbt)-[A-Za-z0-9_-]{16,}", "GITLAB_TOKEN"),
    "a key of AWS": (r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "a token of Slack": (r"xox[abeoprs]-[A-Za-z0-9-]{10,}", ""),
    "a token of a package index": (r"pypi-[A-Za-z0-9_-]{32,}|npm_[A-Za-z0-9]{30,}", ""),
    "a token of Google": (r"ya29\.[A-Za-z0-9_-]{20,}", ""),
    "a signed token (JWT)": (r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", ""),
    "a private key": (r"-----BEGIN [A-Z ]*PRIVATE KEY-----", ""),
}
"""What a secret is called, how it is written, and the environment variable that its programs read, where one is known."""
_COMPILED = {
    name: re.compile(form if form.startswith("-") else f"{_START}(?:{form}){_END}")
    for name, (form, _) in _FORMS.items()
}
_HEADER = re.compile(r"\s*(?:bearer|basic|token)\s+(?=\S*[\d=])[^\s<{]{12,}\s*", re.IGNORECASE)
_USERINFO = re.compile(r"(:/{1,2})[^/?#\s'\"@]+(?=@)")  # a path has one slash of two left
_SURE = {
    "password", "passwd", "passphrase", "pwd", "secret", "apikey", "authorization", "bearer", "authtoken", "accesstoken",
}  # fmt: skip
"""Last words of names that only secrets have."""
_TOKENS = {
    "hub", "hf", "huggingface", "auth", "access", "api", "bearer", "refresh", "session", "github", "gitlab", "git", "personal",
    "security", "secret", "wandb", "oauth", "deploy", "slack",
}  # fmt: skip
_KEYS = {
    "api", "access", "secret", "private", "account", "auth", "encryption", "signing", "subscription", "shared", "wandb",
}  # fmt: skip
_PERHAPS = {
    "token", "key", "auth", "sig", "signature", "credential", "credentials", "sas", "session", "cookie", "env", "pat",
}  # fmt: skip
"""Last words of names under which a random value is a secret, and a word is none."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_VALUE = re.compile(
    r"(?P<before>[?&]?)(?P<name>[A-Za-z0-9_.-]+)(?P<is>=|:(?!/))(?P<value>[^\s&'\",;]+?)(?=:?(?:[\s&'\",;]|$))"
)
_PASSWORD_IN_URL = re.compile(r"://[^/?#\s'\"@:<]+:[^/?#\s'\"@<]+@")
_ASSIGNED = re.compile(  # at most 40 letters of the name: a picture in base64 is one word of a million
    r"(?i)(?<![\w.-])([\w.-]{0,40}(?:key|token|secret|passwd|password|passphrase|pwd|bearer|authorization))"
    r"[\"']?\s*[:=]\s*[\"']?([^\s\"',;&<}]{16,})"
)
_YAML = re.compile(r"(?im)^(\s*[-\w.\"']*(?:key|token|secret|password|passwd|pwd|authorization)[\"']?\s*:\s*)\S.*$")


@dataclass(frozen=True)
class Secret:
    """A secret that was found in settings."""

    place: str
    """Such as sources[0].backend.url; it holds nothing of the secret."""
    kind: str
    """Such as *a token of Hugging Face*."""
    variable: str
    """The environment variable to use instead; empty where none is known."""

    @property
    def way_out(self) -> str:
        """What to do instead."""
        parts = set(re.split(r"[.\[]", self.place))
        if {"backend", "extra_body", "url", "api_key_env"} & parts and not self.variable:
            return "name the environment variable that holds it in backend.api_key_env"
        return f"export it as {self.variable or 'an environment variable of the program that needs it'}"


def refuse_secrets(settings: Any, origin: str = "") -> None:
    """Raise ValueError, without a word of what they are, where `settings` (as read from YAML or JSON) hold secrets.

    `origin` is put before each place. Names of tokens of a tokenizer (pad_token, max_tokens) and values that are words are no
    secrets.
    """
    found = list(secrets_in(settings, origin))
    if not found:
        return
    places = ", ".join(f"{secret.place or 'a value'} ({secret.kind})" for secret in found)
    ways = "; ".join(dict.fromkeys(secret.way_out for secret in found))
    raise ValueError(
        f"No secret may stand in settings, which are kept in config.yaml, key.json, reports and checkpoints: {places}. Take "
        f"it out, and {ways}."
    )


def secrets_in(value: Any, place: str = "", name: str = "", by_name: bool = True) -> Iterator[Secret]:
    """Yield the secrets among keys and values. `name` is that of the value, and of each in a list.

    `by_name` says whether the names of the keys mean anything.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if kind := _form(str(key)):
                yield Secret(f"a key of {place or 'it'}", kind, _variable("", kind))
            else:
                inner = f"{place}.{key}" if place else str(key)
                yield from secrets_in(each, inner, str(key) if by_name else "", str(key) not in COLUMNS)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, each in enumerate(value):
            yield from secrets_in(each, f"{place}[{number}]", name, by_name)
    elif kind := _kind(name, value):
        yield Secret(place, kind, _variable(place, kind))


def secrets_in_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line, counted from 1, and the kind of each secret in a text of any sort.

    Found are known tokens, values of environment variables that are named like secrets, passwords in addresses, and random
    values under names that only secrets have. A password in a sentence is none of these.
    """
    known = {form: "a secret of the environment" for secret in _environment() for form in spellings(secret)}
    found = [(text.find(form), kind) for form, kind in known.items()]
    for kind, form in {**_COMPILED, "a password in an address": _PASSWORD_IN_URL}.items():
        found += [(each.start(), kind) for each in form.finditer(text)]
    for each in _ASSIGNED.finditer(text):
        if names_a_secret(each[1]) and _is_random(each[2]):
            found.append((each.start(), "a random value under such a name"))
    yield from sorted({(text.count("\n", 0, start) + 1, kind) for start, kind in found if start >= 0})


def names_a_secret(name: str) -> bool:
    """Return whether only secrets are called so: api_key, hub_token, password; and not pad_token, tokens, key, api_key_env."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    before, last = words[-2] if len(words) > 1 else "", words[-1]
    return last in _SURE or (last == "token" and before in _TOKENS) or (last == "key" and before in _KEYS)


def read_key(variable: str) -> str:
    """Return the key that an environment variable holds, without white space around it, such as a file's last line break.

    Raises ValueError, which does not show it, where it is not set or holds what no header can.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"backend.api_key_env names {variable}, which is not set. Export the key under it.")
    if not is_header_value(key):
        raise ValueError(
            f"backend.api_key_env names {variable}, which holds line breaks or other characters that no key has. "
            "Export the key alone."
        )
    return key


def is_header_value(key: str) -> bool:
    """Return whether a key can be sent in a header: printable ASCII without spaces."""
    return key.isascii() and key.isprintable() and " " not in key


def hide(text: str, *known: str | None) -> str:
    """Return a text to print or raise, with secrets masked.

    Those are the `known` ones, values of environment variables that are named like secrets, names and passwords in URLs
    (and of proxies), values of queries and assignments whose names say so, and whatever has the form of a known token.
    """
    for secret in sorted({*filter(None, known), *_environment()}, key=len, reverse=True):
        for form in spellings(secret):
            text = text.replace(form, MASK)
    for form in _COMPILED.values():
        text = form.sub(MASK, text)
    return _VALUE.sub(_masked_value, _USERINFO.sub(rf"\1{MASK}", text))


def _masked_value(found: re.Match[str]) -> str:
    """`name=value` with the value masked where the name says so; behind ? and & more names do."""
    name = found["name"].lower()
    secret = names_a_secret(found["name"]) or (found["before"] and re.split("[_.-]", name)[-1] in _PERHAPS)
    return f"{found['before']}{found['name']}{found['is']}{MASK}" if secret else found[0]


def hide_lines(text: str) -> str:
    """Return an excerpt of a YAML file with the values behind names of secrets masked, besides what `hide` masks."""
    return hide(_YAML.sub(rf"\1{MASK}", text))


def spellings(secret: str) -> set[str]:
    """Return the ways in which a text may hold a secret: as it is, quoted for a URL, and escaped for JSON."""
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("/", "\\/")}


def _environment() -> Iterator[str]:
    for name, value in os.environ.items():
        words = [word.lower() for word in _WORD.findall(name)]
        if (
            words
            and (names_a_secret(name) or words[-1] in {"token", "key", "credentials"})
            and len(value.strip()) >= LEAST
            and not _is_place(value.strip())
        ):
            yield value.strip()
        if words and words[-1] == "proxy" and "@" in value:
            userinfo = value.rpartition("@")[0].rpartition("://")[2]
            yield from (part for part in [userinfo, *re.split("[:/]", userinfo)[1:]] if part)


def _kind(name: str, value: Any) -> str:
    """What secret a value is, by its own form or that of its name; empty for none."""
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return "a secret by its name" if names_a_secret(name) and abs(value) >= 1000 else ""
    if not isinstance(value, str) or not value.strip():
        return ""
    if kind := _form(value):
        return kind
    if names_a_secret(name) and value.strip() != MASK:
        return "a secret by its name"
    words = [word.lower() for word in _WORD.findall(name)]
    return "a random value under such a name" if words and words[-1] in _PERHAPS and _is_random(value.strip()) else ""


def _form(value: str) -> str:
    for kind, form in _COMPILED.items():
        if form.search(value):
            return kind
    if _HEADER.fullmatch(value):
        return "a header with a key"
    return _in_url(value.strip()) if "://" in value and not re.search(r"\s", value.strip()) else ""


def _in_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        queries = [*parse_qsl(parts.query), *parse_qsl(parts.fragment)]
    except ValueError:
        return "a name or password in an address" if _USERINFO.search(value) else ""
    user, at, _ = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme in ("http", "https")):
        return "a name or password in an address"
    for name, given in queries:
        words = [word.lower() for word in _WORD.findall(name)] or [""]
        if given and (names_a_secret(name) or words[-1] in _PERHAPS - {"env"}):
            return f"the query {name} of an address"
    return ""


def _is_random(value: str) -> bool:
    """Whether a value is a key rather than words or versions: a long piece of letters and digits, hardly one of them twice."""
    if not re.fullmatch(r"[A-Za-z0-9_\-+/=.]{16,}", value):
        return False
    piece = max(re.split(r"[_\-+/=.]", value), key=len)
    mixed = re.search(r"\d", piece) and re.search("[A-Za-z]", piece)
    bits = -sum(n / len(piece) * math.log2(n / len(piece)) for n in Counter(piece).values())
    return bool(mixed) and len(piece) >= 12 and bits > 2.8


def _variable(place: str, kind: str) -> str:
    if kind in _FORMS and _FORMS[kind][1]:
        return _FORMS[kind][1]
    words = {word.lower() for word in _WORD.findall(place)}
    if words & {"hub", "hf", "huggingface"}:
        return "HF_TOKEN"
    return "WANDB_API_KEY" if "wandb" in words else ""


def _is_place(value: str) -> bool:
    """Whether a value is the path of something that is here, as that of PWD is; a secret is none."""
    try:
        return Path(value).is_absolute() and Path(value).exists()
    except OSError:
        return False  # too long for a name
