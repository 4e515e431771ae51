"""A whole study on tiny models: what is made, that nothing is made twice, and that the choice never sees what is reported."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import SimpleQueue

import pandas
import pytest
import yaml
from rich.console import Console

from fusion.runtime.locks import exclusive
from fusion.runtime.progress_lines import ProgressLines
from fusion.study import Study, StudyGrid, executor, run, runner
from fusion.study.results_page import find_markers, insert_into_page
from fusion.training import fit
from fusion_eval.results import MEAN
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS
from tests.helpers import runs

ARMS = {
    "plain": {"objectives": [{"kind": "cross_entropy"}]},
    "kl": {"objectives": [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]},
}


def study(folder, **changes) -> StudyGrid:
    (folder / "base.yaml").write_text(yaml.safe_dump(runs.raw(folder, strategies=["unified"])))
    other = runs.write_data(folder, "validation.jsonl", 6, start=200)
    heldout = [{"path": other, "domain": f"d{i}", "where": {"domain": i}} for i in range(2)]
    tuning = {"grid": {"training.learning_rate": [1e-6, 1e-2]}, "heldout": heldout}
    raw = {"name": "s", "runs": str(folder / "runs"), "base": str(folder / "base.yaml"), "arms": ARMS, "seeds": [0, 1]}
    return StudyGrid(Study.model_validate(raw | {"baseline": "plain", "tuning": tuning} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def results(folder):
    return run(study(folder))


def test_every_arm_has_a_result_of_every_seed_and_the_original_models_have_one(results):
    assert {arm: len(found) for arm, found in results.by_arm.items()} == {"plain": 2, "kl": 2}
    assert [result.model for result in results.original_models] == ["pivot", "neox", "qwen"]


def test_each_arm_chose_the_setting_that_learns(results):
    assert results.chosen == {arm: {"training.learning_rate": 1e-2} for arm in ARMS}


def test_the_trial_that_was_chosen_is_not_trained_again_to_be_measured(results, folder):
    trial = folder / "runs/s/kl/trial-1-seed-0/train/unified"
    assert trial.resolve() == (folder / "runs/s/kl/setting-1-seed-0/train/unified").resolve()


def test_a_second_call_makes_nothing(results, folder, monkeypatch):
    monkeypatch.setattr(fit, "train", None)
    monkeypatch.setattr(executor.pipeline, "run", None)
    again = run(study(folder))
    assert again.rows("bits_per_byte") == results.rows("bits_per_byte")


def test_a_study_that_is_being_run_is_refused_with_the_name_of_the_process(results, folder, monkeypatch):
    monkeypatch.setattr(executor.pipeline, "run", None)
    lock = exclusive(folder / "runs/s/.lock", "it")
    refused = pytest.raises(BlockingIOError, match=rf"The study in .*s is being written by process {os.getpid()} on ")
    with lock, ThreadPoolExecutor() as pool, refused:
        pool.submit(run, study(folder)).result()
    assert not (folder / "runs/s/.lock").exists()


def test_rows_tell_the_difference_from_the_baseline_and_the_share_of_the_gap(results):
    rows = {row.name: row for row in results.rows("bits_per_byte")}
    assert list(rows) == ["pivot", "neox", "qwen", "plain", "kl"]
    assert rows["plain"].difference is None
    assert rows["kl"].difference.value == pytest.approx(rows["kl"].value.value - rows["plain"].value.value)
    assert rows["pivot"].better("bits_per_byte") is False  # four steps of training are better than none


@pytest.mark.slow
def test_several_processes_come_to_the_same_and_say_how_far_they_are(results, folder, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(runner, "ProgressLines", lines_that_keep(notes))
    tuning = study(folder).study.tuning.model_copy(update={"grid": {"training.learning_rate": [1e-2]}})
    small = {"name": "wide", "tuning": tuning.model_dump(exclude_unset=True), "seeds": [0]}
    both = run(study(folder, **small), jobs=2)
    nats = {arm: [item.nll for item in found[0].samples] for arm, found in results.by_arm.items()}
    assert {arm: [item.nll for item in found[0].samples] for arm, found in both.by_arm.items()} == nats
    assert any(re.search("pivot and sources: .*; plain, learning_rate 0.01: ", note) for note in notes), notes
    assert notes[-1] == ""


def lines_that_keep(notes: list[str]) -> type[ProgressLines]:
    """The lines of a study, which also keep everything that is said behind them."""

    class KeptLines(ProgressLines):
        note = property(lambda self: notes[-1] if notes else "", lambda self, note: notes.append(note))

    return KeptLines


def test_behind_the_line_stands_what_each_process_does_now():
    notes = []
    said = SimpleQueue()
    for each in [("a", "begins"), ("b", "rows of qwen"), ("a", ""), ("b", ""), None]:
        said.put(each)
    executor.RunExecutor(lines_that_keep(notes)("s", 2, console=Console()))._follow(said)
    assert notes[-4:] == ["now a: begins", "now a: begins; b: rows of qwen", "now b: rows of qwen", ""]


def test_of_an_arm_with_rounds_the_model_behind_them_counts(folder):
    objectives = [{"kind": "forward_kl"}, {"kind": "cross_entropy", "part": "replay"}]
    rounds = {"count": 1, "prompts": 4, "num_generations": 1, "max_completion_length": 6, "objectives": objectives}
    arms = {"plain": {}, "rounds": {"rounds": rounds | {"training": {"num_train_epochs": 1, "learning_rate": 1e-2}}}}
    found = run(study(folder, name="further", arms=arms, tuning=None, seeds=[0])).by_arm
    assert [found[arm][0].model for arm in arms] == ["unified", "rounds"]
    assert [item.nll for item in found["rounds"][0].samples] != [item.nll for item in found["plain"][0].samples]


def test_the_folder_holds_tables_numbers_and_figures(results, folder):
    place = folder / "runs/s"
    assert (place / "bits_per_byte.png").stat().st_size > 5000
    found = json.loads((place / "results.json").read_text())
    assert {entry["name"] for entry in found} == {"pivot", "neox", "qwen", "plain", "kl"}
    text = (place / "results.md").read_text()
    assert "2 seeds, 6 held-out examples" in text
    assert re.search(
        r"\| kl \| learning\\_rate 1e-06: [\d.]+; \*\*learning\\_rate 0.01: [\d.]+\*\* \| learning\\_rate \|", text
    )
    assert "one beyond it may be better" in text


def test_pandas_reads_the_table_as_one_line_for_each_metric_domain_and_arm(results, folder):
    table = pandas.read_csv(folder / "runs/s/results.csv")
    assert len(table) == sum(len(results.rows(m, d)) for m in results.metrics for d in results.domains)
    assert table.drop_duplicates(["metric", "domain", "arm"]).shape == table.shape
    row = table.set_index(["metric", "domain", "arm"]).loc[("bits_per_byte", "mean", "kl")]
    ours = {each.name: each for each in results.rows("bits_per_byte")}["kl"]
    assert (row.value, row.difference_low, row.n) == (ours.value.value, ours.difference.low, ours.value.n)
    assert table[table.arm == "plain"].difference.isna().all()


def test_the_tables_go_between_the_marks_of_a_page(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- study s -->\nold\n<!-- end -->\nbelow")
    insert_into_page(page, "s", results)
    text = page.read_text()
    assert find_markers(page, "s")
    assert text.startswith("above\n<!-- study s -->\n| arm | exact match % (minus plain, 95%) | bits per byte")
    assert text.endswith("\n![exact match %, by arm](images/s.png)\n<!-- end -->\nbelow")
    assert (tmp_path / "images" / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "old" not in text
    with pytest.raises(ValueError, match="write the lines <!-- study t --> and <!-- end --> there"):
        insert_into_page(page, "t", results)


def test_settings_may_not_be_chosen_on_what_is_reported(folder):
    raw = runs.raw(folder)
    tuning = {"grid": {"training.learning_rate": [1e-3]}, "heldout": raw["data"]["heldout"]}
    with pytest.raises(
        ValueError, match="6 of 6 examples of tuning.heldout are also in the data that results are measured on"
    ):
        run(study(folder, name="other", tuning=tuning))


def test_a_metric_that_is_not_measured_cannot_decide(folder):
    tuning = study(folder).study.tuning.model_dump(exclude_unset=True) | {"metric": "exact_match"}
    with pytest.raises(ValueError, match="which tuning.heldout does not measure; it knows bits_per_byte"):
        run(StudyGrid(study(folder, name="third", tuning=tuning).study, ["evaluation.exact_match=[]"]))


def test_a_study_says_a_line_for_each_run_and_at_the_end_how_long_it_took(results, folder, capsys):
    run(study(folder))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines if "/" in line.split()[0]] == [f"{n}/9" for n in range(1, 10)]
    assert any(line.startswith("  s: 9 of 9 runs, in ") for line in lines)


def test_each_arm_has_a_result_of_the_first_seed_before_any_has_one_of_the_second(results, folder, capsys):
    run(study(folder, baseline="kl"))
    said = capsys.readouterr().out
    labels = re.findall(r"^  \d/9  (.*?): ", said, re.MULTILINE)
    rates = [f"learning_rate {rate}" for rate in ("1e-06", "0.01")]
    kl, plain = ([*(f"{arm}, {rate}" for rate in rates), f"{arm}, seed 0"] for arm in ("kl", "plain"))
    assert labels == ["pivot and sources", *kl, *plain, "kl, seed 1", "plain, seed 1"]
    pivot = next(each for each in results.original_models if each.model == "pivot")
    shown = METRICS["bits_per_byte"].show(summarise(pivot)[MEAN]["bits_per_byte"].value)
    assert f"pivot and sources: pivot bits per byte {shown}" in said


@pytest.mark.parametrize(
    ("last", "said"), [("plain, seed 0", "1 of 2 arms, 1 of 2 seeds"), ("plain, seed 1", "2 of 2 arms, 1 of 2 seeds")]
)
def test_a_study_that_is_stopped_has_written_what_it_found(results, folder, monkeypatch, last, said):
    done = executor.RunExecutor._finish

    def stop_behind(self, task, result, seconds):
        done(self, task, result, seconds)
        if task.label == last:
            raise KeyboardInterrupt

    page = folder / "runs/s/results.md"
    (folder / "runs/s/plain/original-models/config.yaml").unlink()  # so that something is made
    monkeypatch.setattr(executor.RunExecutor, "_finish", stop_behind)
    with pytest.raises(KeyboardInterrupt):
        run(study(folder))
    assert page.read_text().startswith(f"So far: {said}.\n\n| arm |")
    assert ("| kl |" in page.read_text()) == (said[0] == "2")
    with pytest.raises(KeyboardInterrupt):
        run(study(folder))
    assert page.read_text().startswith("So far"), "nothing was made, so nothing is written"
    monkeypatch.undo()
    run(study(folder))
    assert page.read_text().startswith("| arm |")
    assert "| kl |" in page.read_text()
