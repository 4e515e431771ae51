"""A run is read in the order a reader wants, needs nothing but run.json, and every mistake in it is named."""

import pytest

from fusion.report.run_contents import read_run
from tests.helpers.report_runs import change, log, result, validation_log, write_run


def test_models_stand_in_the_order_result_baseline_pivot_sources_others(tmp_path):
    run = write_run(tmp_path / "run")
    result("another", 0.5).save(run / "eval" / "another" / "heldout.json")
    models = [one.model for one in read_run(run).results["heldout"]]
    assert models == ["unified", "finetune", "pivot", "smol", "tiny-llama", "another"]


def test_each_suite_has_its_results(tmp_path):
    run = write_run(tmp_path / "run")
    result("unified", suite="other").save(run / "eval" / "unified" / "other.json")
    contents = read_run(run)
    assert [len(contents.results[suite]) for suite in ("heldout", "other")] == [5, 1]
    assert contents.baseline("other") is None
    assert contents.result("other") == result("unified", suite="other")


def test_logs_bear_the_name_of_their_training_and_keep_every_number(tmp_path):
    logs = read_run(write_run(tmp_path / "run")).logs
    assert logs == {
        "unified": log(("cross_entropy", "forward_kl")) + validation_log(0.8),
        "pairwise/smol": log(("cross_entropy",)) + validation_log(0.5),
    }


def test_a_run_of_which_there_is_only_run_json_can_be_read(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "a", "created": "today", "seed": 3}')
    contents = read_run(tmp_path)
    assert (contents.config, contents.logs, contents.results, contents.run.stages) == (None, {}, {}, [])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run.json is missing"):
        read_run(tmp_path)


def test_all_mistakes_of_run_json_are_shown_at_once(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, name=None, stages=[{"name": "train", "seconds": -1}])
    with pytest.raises(ValueError, match="run.json cannot be used") as found:
        read_run(run)
    assert "name: Field required" in str(found.value)
    assert "stages.0.seconds" in str(found.value)


@pytest.mark.parametrize("file", ["run.json", "train/unified/log.json", "eval/unified/heldout.json"])
def test_a_half_written_file_is_named(tmp_path, file):
    run = write_run(tmp_path / "run")
    (run / file).write_text((run / file).read_text()[:-5])
    with pytest.raises(ValueError, match=file):
        read_run(run)
