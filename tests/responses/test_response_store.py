"""A folder of JSON lines: made bit by bit, resumed, shared, and refused where it was made from something else."""

import pytest

from fusion.cache import write_missing_shards
from fusion.responses import ResponseStore

IDS = ["c", "a", "b", "a", "d\u2028e"]
KEY = {"model": "abc"}


def store(folder, key=KEY, ids=IDS, shard_size=2):
    return ResponseStore(folder, key, ids, shard_size=shard_size, redo="fusion respond")


def values(folder):
    return lambda number: [{"of": id, "text": "a\x85\u2028b\n🙂"} for id in folder.shard_ids(number)]


def test_what_is_written_is_read_whatever_the_order_of_the_ids(tmp_path):
    one = store(tmp_path)
    assert one.missing() == [0, 1]
    assert write_missing_shards(one, values(one), pause=0.01) is one
    assert one.is_complete
    other = store(tmp_path, ids=list(reversed(IDS)))
    assert other.is_complete
    assert other.read() == {id: {"of": id, "text": "a\x85\u2028b\n🙂"} for id in sorted(set(IDS))}
    assert not list(tmp_path.glob("*claims*"))


def test_a_folder_that_is_half_done_goes_on(tmp_path):
    one = store(tmp_path)
    one.write(1, values(one)(1))
    again, made = store(tmp_path), []
    write_missing_shards(again, lambda number: made.append(number) or values(again)(number), pause=0.01)
    assert made == [0]
    assert set(again.read()) == set(IDS)


def test_an_unfinished_folder_is_not_marked_as_whole(tmp_path):
    one = store(tmp_path)
    one.write(0, values(one)(0))
    with pytest.raises(ValueError, match=r"shards \[1\] of 2 are not written yet"):
        one.finalize()
    assert not one.is_complete


@pytest.mark.parametrize("change", [{"key": {"model": "other"}}, {"ids": ["a"]}, {"shard_size": 3}])
def test_another_key_other_prompts_or_shards_are_refused(tmp_path, change):
    store(tmp_path)
    with pytest.raises(ValueError, match=r"was made from something else.*run `fusion respond` again"):
        store(tmp_path, **change)


def test_a_shard_takes_one_value_for_each_of_its_prompts(tmp_path):
    one = store(tmp_path)
    with pytest.raises(ValueError, match="zip"):
        one.write(0, [1])
