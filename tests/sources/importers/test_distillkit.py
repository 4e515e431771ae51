"""DistillKit's captures, from a writer of the tests' own, against the log-probabilities they were made from."""

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml

from fusion.sources.importers import find_files, match_to_examples, read_sequences
from tests.helpers import dump_writers

EXACT = {"k": 8, "exact_k": 8, "exact_dtype": "float32", "delta_encoding": False}
CASES = {
    "exact": (EXACT, 1e-5),
    "deltas": (EXACT | {"delta_encoding": True}, 1e-4),
    "half": (EXACT | {"exact_dtype": "bfloat16"}, 0.05),
    "fitted": (EXACT | {"exact_k": 2, "polynomial_terms": [0, 1, "sqrt"]}, 0.5),
    "fitted, even": (EXACT | {"exact_k": 2, "polynomial_terms": [0, 1, 2, "sqrt"], "normalize_t": True}, 0.5),
    "residuals": (
        EXACT | {"exact_k": 1, "polynomial_terms": [0, 1], "residual_bins": [
            {"scale_dtype": "float16", "element_bits": 9, "num_elements": 3},
            {"scale_dtype": "float32", "element_bits": 12, "num_elements": 4},
        ]}, 0.02,
    ),
    "deltas in bins": (
        EXACT | {"exact_k": 1, "delta_encoding": True, "residual_bins": [
            {"scale_dtype": "float32", "element_bits": 11, "num_elements": 7}]}, 0.02,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_that_were_captured(truth, tmp_path, case):
    how, tolerance = CASES[case]
    folder = dump_writers.distillkit(tmp_path / "capture", truth, how | {"d": truth.vocabulary})
    found, counts = match_to_examples(
        read_sequences("distillkit", find_files("distillkit", [folder])), truth.texts, 8, truth.vocabulary
    )
    assert counts == {"matched": 4}
    for id in truth.texts:
        values, ids, gold = truth.expected(id, 8)
        rows = found[id]
        torch.testing.assert_close(rows.logprobs.double(), values, atol=tolerance, rtol=0)
        assert (rows.logprobs.diff(dim=-1) <= 0).all()
        assert torch.equal(rows.ids.sort(-1).values, ids.sort(-1).values)
        inside = (ids == rows.token[:, None]).any(-1)
        assert torch.equal(rows.gold.isfinite(), inside)
        torch.testing.assert_close(rows.gold[inside].double(), gold[inside], atol=tolerance, rtol=0)
        assert rows.mean.isnan().all()
        assert rows.std.isnan().all()
        assert rows.prefix.tolist() == truth.texts[id].prefix


def test_one_bit_residuals_stand_for_plus_and_minus_the_scale(truth, tmp_path):
    bins = [{"scale_dtype": "float32", "element_bits": 1, "num_elements": 4}]
    how = EXACT | {"exact_k": 4, "d": truth.vocabulary, "polynomial_terms": [0], "residual_bins": bins}
    folder = dump_writers.distillkit(tmp_path / "capture", truth, how)
    told = next(iter(read_sequences("distillkit", find_files("distillkit", [folder]))))
    values, _ = truth.top("id0", 8)
    left = values[:, 4:].numpy()
    mean, scale = left.mean(-1, keepdims=True), abs(left - left.mean(-1, keepdims=True)).max(-1, keepdims=True)
    expected = mean + scale * (2 * (left > mean) - 1)
    torch.testing.assert_close(told.logprobs[:-1, 4:].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_settings_may_come_from_a_training_configuration(truth, tmp_path):
    folder = dump_writers.distillkit(tmp_path / "capture", truth, EXACT | {"d": truth.vocabulary})
    (folder / "compression_config.yaml").rename(tmp_path / "own.yaml")
    run = {
        "model": "x",
        "teacher": {"kind": "dataset", "logprob_compressor": yaml.safe_load((tmp_path / "own.yaml").read_text())},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    files = find_files("distillkit", [folder])
    with pytest.raises(ValueError, match=r"There is no .*compression_config.yaml .*--codec"):
        list(read_sequences("distillkit", files))
    one, other = (list(read_sequences("distillkit", files, codec=tmp_path / name)) for name in ("own.yaml", "run.yaml"))
    assert all(torch.equal(a.logprobs, b.logprobs) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("wrong", [{"exact_k": 7, "polynomial_terms": [0, 1]}, {"k": 9, "exact_k": 9}, {"d": 1 << 20}])
def test_other_settings_than_the_files_are_found_out(truth, tmp_path, wrong):
    how = EXACT | {"d": truth.vocabulary}
    folder = dump_writers.distillkit(tmp_path / "capture", truth, how)
    (folder / "compression_config.yaml").write_text(yaml.safe_dump(how | wrong))
    with pytest.raises(ValueError, match=r"data_0.parquet was made with other settings than"):
        list(read_sequences("distillkit", find_files("distillkit", [folder])))


def test_what_are_no_settings_is_said(truth, tmp_path):
    folder = dump_writers.distillkit(tmp_path / "capture", truth, EXACT | {"d": truth.vocabulary})
    (folder / "compression_config.yaml").write_text("k: many\n")
    with pytest.raises(ValueError, match="does not hold the settings of DistillKit's compression"):
        list(read_sequences("distillkit", find_files("distillkit", [folder])))


def test_the_older_layout_is_refused(tmp_path):
    table = pyarrow.table(
        {"input_ids": [[1, 2]], "packed_indices": [[[3]]], "exact_values": [[[0.5]]], "coeffs": [[[0.1]]]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "data_0.parquet")
    (tmp_path / "compression_config.yaml").write_text(yaml.safe_dump(EXACT | {"d": 10}))
    with pytest.raises(ValueError, match="older layout cannot be read: they do not say what their values are"):
        list(read_sequences("distillkit", [tmp_path / "data_0.parquet"]))


def test_a_folder_without_files_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"holds none that end in .parquet"):
        find_files("distillkit", [tmp_path])
    with pytest.raises(ValueError, match=r"x.parquet is no file"):
        find_files("distillkit", [tmp_path / "x.parquet"])
