"""The rows of a real model in every format and precision are accepted, and other numbers are refused with their cause."""

import os
from pathlib import Path

import pytest
import torch

from fusion.sources.importers import find_files, match_to_examples, read_sequences
from fusion.sources.listed import SourceCheck, check_numbers
from tests.helpers import dump_writers, listed_rows
from tests.helpers.listed_rows import CODECS, CORRUPTED, ROUNDED, K

REAL = os.environ.get("FUSION_REAL_MODELS")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models"),
]


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "gemma-3-270m"])
def real(request):
    paragraphs = Path(__file__).parents[3].joinpath("README.md").read_text().split("\n\n")
    pairs = [("Go on.\n", text[:400]) for text in paragraphs if len(text) > 250][:8]
    return listed_rows.said(Path(f"{REAL}/{request.param}"), pairs)


def judge(rows, vocabulary, change=lambda values: values):
    check = SourceCheck(vocabulary)
    for each in rows:
        each.logprobs.copy_(change(each.logprobs))
        check_numbers(each)
        check.add(each)
    check.conclude("dump.jsonl")


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_real_models_rows_are_accepted_however_they_were_rounded(real, precision, k, capsys):
    judge(real.rows(k), real.vocabulary, ROUNDED[precision])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("what", CORRUPTED)
def test_other_numbers_are_refused_with_their_cause(real, what):
    change, cause = CORRUPTED[what]
    with pytest.raises(ValueError, match=cause):
        judge(real.rows(10, change), real.vocabulary)


@pytest.mark.parametrize(("moved", "direction"), [(1, "earlier"), (-1, "later")])
def test_shifted_rows_are_refused(real, moved, direction):
    with pytest.raises(ValueError, match=f"shifted, one row {direction}"):
        judge(real.rows(10, moved=moved), real.vocabulary)


def test_rows_of_other_texts_are_refused(real):
    with pytest.raises(ValueError, match="belong to (other|another) text"):
        judge(real.rows(10, order=[*range(1, len(real.texts)), 0]), real.vocabulary)


@pytest.mark.parametrize("codec", CODECS)
def test_distillkits_codecs_are_read(real, tmp_path, codec, capsys):
    made = dump_writers.distillkit(tmp_path / "x", real.dump(), CODECS[codec] | {"d": real.vocabulary})
    sequences = read_sequences("distillkit", find_files("distillkit", [made]))
    _, counts = match_to_examples(sequences, real.dump().texts, K, real.vocabulary)
    assert counts == {"matched": len(real.texts)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_megatrons_archives_are_read(real, tmp_path, dtype, capsys):
    if real.vocabulary > 1 << 17:
        pytest.skip("ids have 17 bits there")
    files, tokens = listed_rows.megatron_dump(real, tmp_path, dtype, length=300)
    match_to_examples(read_sequences("megatron", files, tokens=tokens), real.dump().texts, K, real.vocabulary)
    assert not capsys.readouterr().out
