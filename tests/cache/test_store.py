"""The cache gives back what was written, resumes at a shard, and knows what it was made from."""

import dataclasses
import json
import random

import pytest
import torch

from fusion import cache as caches
from fusion.cache import Cache
from fusion.cache.codec import bytes_per_row
from fusion.core.rows import LogitRows

KEY = {"model": "abc", "top_k": 4}
IDS = [f"id{i:02d}" for i in range(11)]
VOCABULARY = 260_000


def writer_of(folder, key, ids, shard, values="float16"):
    return caches.CacheWriter(folder, key, ids, shard, values, vocabulary=VOCABULARY)


def rows_of(ids, k=4):
    """Rows that tell which example they belong to: example i has i % 3 + 1 rows."""
    parts = []
    for number, id in enumerate(ids):
        i = int(id[2:])
        n = i % 3 + 1
        value = -torch.arange(n * k, dtype=torch.float32).reshape(n, k) / 7 - i % 12
        numbers = torch.arange(n)
        tokens, example = numbers[:, None] + torch.arange(k) * 1000 + 200_000, torch.full((n,), number)
        parts.append(
            LogitRows(
                value, tokens, value[:, 0], value[:, 1], value[:, 2].abs(), prefix=numbers * 5 - 1, example=example
            )
        )
    return LogitRows.cat(parts)


def fill(writer):
    for number in writer.missing():
        writer.write(number, rows_of(writer.examples(number)))
    return writer.finalize()


@pytest.mark.parametrize(("values", "tolerance"), [("float32", 0), ("float16", 0.01), ("packed", 0.03)])
def test_rows_come_back_in_any_order(tmp_path, values, tolerance):
    cache = fill(writer_of(tmp_path, KEY, IDS, 4, values))
    wanted = random.Random(0).sample(IDS, 7)
    got, expected = cache.rows(wanted), rows_of(wanted)
    for name in ("logprobs", "gold", "mean", "std"):
        torch.testing.assert_close(
            getattr(got, name), getattr(expected, name), atol=tolerance, rtol=0.005 * bool(tolerance)
        )
    for name in ("ids", "prefix", "example"):
        assert torch.equal(getattr(got, name), getattr(expected, name))


def test_a_shard_that_keeps_its_prefixes_apart_is_read_beside_others(tmp_path):
    writer = writer_of(tmp_path, KEY, IDS, 4, "packed")
    far = {}
    for number in writer.missing():
        rows = rows_of(writer.examples(number))
        if number == 1:
            rows.prefix[rows.prefix > 0] += 1000  # a token of more bytes than a step can say
        far |= {id: rows.prefix[rows.example == i] for i, id in enumerate(writer.examples(number))}
        writer.write(number, rows)
    wanted = random.Random(1).sample(IDS, 11)
    got = writer.finalize().rows(wanted)
    assert torch.equal(got.prefix, torch.cat([far[id] for id in wanted]))
    assert torch.equal(got.ids, rows_of(wanted).ids)


@pytest.mark.parametrize("values", ["packed", "float16"])
def test_hidden_states_are_read_where_they_are_asked_for_only(tmp_path, values):
    writer = writer_of(tmp_path, KEY, IDS, 4, values)
    states = {}
    for number in writer.missing():
        rows = rows_of(writer.examples(number))
        rows = dataclasses.replace(rows, hidden=torch.randn(len(rows), 6).half())
        states |= {id: rows.hidden[rows.example == i].float() for i, id in enumerate(writer.examples(number))}
        writer.write(number, rows)
    cache = writer.finalize()
    assert (cache.hidden_size, cache.known_fields.hidden) == (6, len(cache))
    wanted = random.Random(0).sample(IDS, 7)
    assert torch.equal(cache.rows(wanted, hidden=True).hidden, torch.cat([states[id] for id in wanted]))
    assert cache.rows(wanted).hidden is None


def test_shards_of_different_width_are_refused(tmp_path):
    writer = writer_of(tmp_path, KEY, IDS, 4)
    for number in writer.missing():
        writer.write(number, rows_of(writer.examples(number), k=4 + number % 2))
    with pytest.raises(ValueError, match=r"keep \[4, 5\] entries"):
        writer.finalize()


def test_the_order_of_the_data_and_doubles_change_nothing(tmp_path):
    one = fill(writer_of(tmp_path / "a", KEY, IDS, 4))
    other = fill(writer_of(tmp_path / "b", KEY, [*reversed(IDS), IDS[3]], 4))
    assert one.artifact_key == other.artifact_key
    for file in (tmp_path / "a").glob("shard*"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_killed_extraction_goes_on_at_the_missing_shard(tmp_path):
    first = writer_of(tmp_path, KEY, IDS, 4)
    first.write(1, rows_of(first.examples(1)))
    (tmp_path / "shard-00000-of-00003.part").write_bytes(b"half")
    with pytest.raises(ValueError, match="no complete cache"):
        Cache(tmp_path)
    with pytest.raises(ValueError, match=r"shards \[0, 2\] of 3"):
        first.finalize()
    again = writer_of(tmp_path, KEY, IDS, 4)
    assert again.missing() == [0, 2]
    fill(again)
    assert writer_of(tmp_path, KEY, IDS, 4).is_complete


@pytest.mark.parametrize("other", [{"model": "xyz"}, {"top_k": 5}, {"template": "chat"}])
def test_a_cache_made_otherwise_is_refused_with_the_reason(tmp_path, other):
    fill(writer_of(tmp_path, KEY, IDS, 4))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    name, value = next(iter(other.items()))
    with pytest.raises(ValueError, match=f"{name}: .* there, .*{value}.* here"):
        writer_of(tmp_path, KEY | other, IDS, 4)
    with pytest.raises(ValueError, match="examples"):
        writer_of(tmp_path, KEY, IDS[:-1], 4)
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_damage_is_found(tmp_path):
    cache = fill(writer_of(tmp_path, KEY, IDS, 4))
    cache.verify()
    shard = tmp_path / "shard-00001-of-00003.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="shard-00001-of-00003.safetensors is damaged"):
        Cache(tmp_path).verify()


def test_an_absent_example_is_named(tmp_path):
    with pytest.raises(KeyError, match="no rows of example id99"):
        fill(writer_of(tmp_path, KEY, IDS, 4)).rows(["id99"])


@pytest.mark.parametrize("values", ["packed", "float16", "float32"])
def test_the_size_on_disk_is_what_the_plan_says(tmp_path, values):
    cache = fill(writer_of(tmp_path, KEY, [f"id{i:02d}" for i in range(99)], 99, values))
    overhead = 1200 + 4 * 99  # header and row counts of the one shard
    planned = len(cache) * bytes_per_row(4, values, VOCABULARY)
    assert planned <= cache.size_in_bytes <= planned + overhead


def test_the_manifest_is_plain_json_and_holds_no_path(tmp_path):
    fill(writer_of(tmp_path, KEY, IDS, 4))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["key"]["model"] == "abc"
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("manifest.json", lambda c: c[:40], "manifest.json, line .*, is not JSON"),
        ("manifest.json", lambda c: b"{}", "manifest.json is not as it was written"),
        ("manifest.json", lambda c: c.replace(b"id03", b"id99"), "manifest.json is not as it was written"),
        (
            "shard-00000-of-00003.safetensors",
            lambda c: c[:100],
            "shard-00000-of-00003.safetensors is absent or damaged",
        ),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, name, spoil, message):
    fill(writer_of(tmp_path / "c", KEY, IDS, 4))
    file = tmp_path / "c" / name
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match=f"{message}.*(?i:delete) {tmp_path / 'c'} and run `fusion extract` again"):
        Cache(tmp_path / "c").rows(IDS[:1])
