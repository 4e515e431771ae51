"""GGUF files that are cut, damaged or none: the file, the byte and the way out, before any library allocates what they say."""

import os
import struct

import pytest

from fusion.models.gguf_check import check_gguf
from fusion.models.loading import ModelRef, load_config, load_model, load_tokenizer
from tests.helpers import gguf_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    gguf_file.write(file)
    return file.read_bytes()


def written(content, tmp_path):
    file = tmp_path / "spoiled.gguf"
    file.write_bytes(content)
    return file


def test_a_whole_file_passes_and_the_weights_are_not_read(whole, tmp_path):
    check_gguf(written(whole, tmp_path))
    check_gguf(written(whole[:-100_000] + os.urandom(100_000), tmp_path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: b"", "is empty"),
        (lambda c: b"PK\x03\x04" + c[4:], r"is no GGUF file: it begins with b'PK\\x03\\x04'"),
        (lambda c: c[:4] + struct.pack("<I", 9) + c[8:], "of version 9; read are 2, 3"),
        (lambda c: c[:8] + struct.pack("<Q", 2**60) + c[16:], "it should hold 1,152,921,504,606,846,976 tensors"),
        (lambda c: c[:16] + struct.pack("<Q", 2**62) + c[24:], "it should hold 4,611,686,018,427,387,904 keys"),
        (lambda c: c[:24] + struct.pack("<Q", 2**40) + c[32:], "a key should be 1,099,511,627,776 bytes long"),
        (lambda c: c[:3000], "is cut off or damaged"),
        (lambda c: c[:-1], "the tensor .* should end at byte"),
        (lambda c: c[: len(c) // 2], "is cut off: the tensor"),
        (lambda c: c.replace(b"llama.block_count", b"llama.block\xff\xfeount"), "a key, at byte .* is not UTF-8"),
    ],
)
def test_damage_is_named_with_the_file_and_the_way_out(whole, tmp_path, spoil, message):
    file = written(spoil(whole), tmp_path)
    for load in (load_tokenizer, load_config, load_model):
        with pytest.raises(ValueError, match=f"(?s){file} .*{message}.*copy or download it again") as refused:
            load(ModelRef(str(file)))
        assert str(refused.value).count("\n") == 0


def test_a_file_that_is_replaced_is_looked_at_again(whole, tmp_path):
    file = written(whole, tmp_path)
    check_gguf(file)
    file.write_bytes(whole[:5000])
    with pytest.raises(ValueError, match="cut off"):
        check_gguf(file)
