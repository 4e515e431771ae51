"""Match the token names of a server's answer with the ids that were sent, and its other names with ids where that is safe.

Servers name a token by its text, and the text of a part of a character in three ways: U+FFFD for it (transformers' `decode`),
nothing until the character is whole and then all of it (vLLM), nothing at all (llama-cpp-python). Control tokens have their
text or none. Every one of these is understood; a name that two tokens could have belongs to neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fusion.tokenizers import cached_per_tokenizer, control_tokens, vocabulary_bytes

TOKEN_ID = "token_id:"  # how vLLM names a token with return_tokens_as_token_ids
_DAMAGED = "\ufffd"


@dataclass(frozen=True, eq=False)
class TokenNames:
    """The names that servers have for the tokens of one tokenizer."""

    tokenizer: Any
    table: Sequence[bytes | None]
    """Bytes of each token; None for control tokens."""
    control: dict[int, str]
    """Text of each control token."""
    by_bytes: dict[bytes, int]
    """Id of each token's bytes; -1 where several tokens have them, those of byte fallback aside."""
    damaged: frozenset[str]
    """What is left of tokens that hold a part of a character, without that part."""

    def accepted(self, id: int, pending: bytes) -> set[str]:
        """Return all names of a token behind `pending`, the bytes of a character that is not whole yet."""
        names = {f"{TOKEN_ID}{id}", self.tokenizer.decode([id], clean_up_tokenization_spaces=False)}
        if id in self.tokenizer.added_tokens_decoder:
            names.add("")
        raw = self.table[id] if id < len(self.table) else None
        if raw is None:
            return names | {self.control.get(id, "")}
        whole = _decoded(pending + raw)
        return names | {raw.decode(errors="replace"), raw.decode(errors="ignore"), "" if whole is None else whole}

    def id_of(self, name: str, pending: bytes) -> int:
        """Return the id that alone can have this name behind `pending`, or -1."""
        if name.startswith(TOKEN_ID):
            return int(name.removeprefix(TOKEN_ID))
        if not name or _DAMAGED in name or name in self.damaged:
            return -1
        raw = name.encode()
        ids = {self.by_bytes[raw]} if raw in self.by_bytes else set()
        if pending and raw.startswith(pending) and raw[len(pending) :] in self.by_bytes:
            ids.add(self.by_bytes[raw[len(pending) :]])
        ids |= {id for id, text in self.control.items() if text == name}
        return ids.pop() if len(ids) == 1 else -1

    def pending(self, ids: Sequence[int]) -> Iterator[bytes]:
        """Yield for each token the bytes of the unfinished character before it: empty where the text before it is whole."""
        open_bytes = b""
        for id in ids:
            yield open_bytes
            raw = self.table[id] if id < len(self.table) else None
            open_bytes = b"" if raw is None or _decoded(open_bytes + raw) is not None else open_bytes + raw

    def places(self, names: Sequence[str], sent: Sequence[int]) -> list[int]:
        """Return the index in `names` of each token that was sent, -1 where the server leaves it out; up to where they differ.

        A server may leave out one control token throughout (llama-cpp-python does so with BOS).
        """
        accepted = [self.accepted(id, before) for id, before in zip(sent, self.pending(sent), strict=True)]
        hidden = (None, *dict.fromkeys(id for id in sent if id in self.control))
        return max((_places(names, accepted, [id == one for id in sent]) for one in hidden), key=len)


@cached_per_tokenizer
def token_names(tokenizer: Any) -> TokenNames:
    """Return the names of a tokenizer's tokens, computed once."""
    table, by_bytes, fallback = vocabulary_bytes(tokenizer), {}, {}
    for id, raw in enumerate(table):
        if raw is None:
            continue
        if len(raw) == 1 and tokenizer.convert_ids_to_tokens(id) == f"<0x{raw[0]:02X}>":
            fallback[raw] = id  # where there is a token for this character, no text is cut into its byte
        else:
            by_bytes[raw] = -1 if raw in by_bytes else id
    by_bytes = fallback | by_bytes
    damaged = frozenset(raw.decode(errors="ignore") for raw in by_bytes if _decoded(raw) is None)
    control = {id: text for text, id in control_tokens(tokenizer).items()}
    return TokenNames(tokenizer, table, control, by_bytes, damaged)


def _places(names: Sequence[str], accepted: Sequence[set[str]], hidden: Sequence[bool]) -> list[int]:
    places, at = [], 0
    for allowed, left_out in zip(accepted, hidden, strict=True):
        if not left_out and (at == len(names) or names[at] not in allowed):
            break
        places.append(-1 if left_out else at)
        at += not left_out
    return places


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
