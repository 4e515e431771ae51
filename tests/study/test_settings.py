"""Studies as files: what is refused, and which runs they come to."""

import json

import pytest
import yaml

from fusion.config import loading
from fusion.config.loading import ConfigError
from fusion.config.recipes import studies
from fusion.study import Study, StudyGrid, load, with_overrides
from tests.helpers import runs

ARMS = {"plain": {"objectives": [{"kind": "cross_entropy"}]}, "kl": {"objectives": [{"kind": "forward_kl"}]}}
TUNING = {"grid": {"training.learning_rate": [1e-3, 1e-2]}, "heldout": [{"path": "v.jsonl", "domain": "d0"}]}


def study(**changes) -> Study:
    return Study.model_validate({"name": "s", "base": "noisy_references", "arms": ARMS, "baseline": "plain"} | changes)


@pytest.mark.parametrize("name", studies())
def test_every_study_that_comes_along_is_whole(name):
    assert StudyGrid(load(name)).check() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "other"}, "baseline is other, and arms are plain, kl"),
        ({"seeds": [1, 1]}, "a seed that comes twice shows nothing new"),
        ({"arms": {"plain": {}}}, "arms"),
        ({"arms": ARMS | {"store": {}}}, "no arm may be called store: the study keeps what its runs share"),
        ({"arms": ARMS | {"a/b": {}}}, "arms.a/b"),
        ({"tuning": TUNING | {"arms": {"kll": {"seed": [1, 2]}}}}, "tuning.arms names kll, and arms are plain, kl"),
        (
            {"tuning": TUNING | {"arms": {"kl": {"seed": [1, 2, 3]}}}},
            "arms should choose among equally many settings; plain among 2, kl among 3",
        ),
        ({"sedes": [1]}, "unknown key sedes; did you mean"),
    ],
)
def test_what_a_study_cannot_be_is_said(tmp_path, changes, message):
    raw = {"name": "s", "base": "noisy_references", "arms": ARMS, "baseline": "plain"} | changes
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "s.yaml")


def test_an_absent_study_lists_those_that_come_along():
    with pytest.raises(ConfigError, match="There is no study x. Give a YAML file, or one of .*methods"):
        load("x")


def test_a_run_is_the_base_with_the_arm_the_setting_and_the_seed_on_top():
    grid = StudyGrid(study(tuning=TUNING), ["training.num_train_epochs=7"])
    setting = grid.settings("kl")[1]
    config = grid.run("kl", setting, 5)
    assert setting == {"training.learning_rate": 1e-2}
    assert (config.training["learning_rate"], config.training["num_train_epochs"], config.seed) == (1e-2, 7, 5)
    assert [objective.kind for objective in config.objectives] == ["forward_kl"]
    assert not config.baseline
    assert not config.evaluation.original_models
    assert str(config.folder) == "runs/s/kl/setting-1-seed-5"
    assert config.store == "runs/s/store"


def test_a_trial_differs_from_the_run_in_what_it_is_measured_on_alone():
    grid = StudyGrid(study(tuning=TUNING), ["evaluation.exact_match=[]"])
    setting = grid.settings("kl")[0]
    run, trial = (json.loads(make("kl", setting, 0).model_dump_json()) for make in (grid.run, grid.trial))
    assert trial["data"].pop("heldout")[0]["path"] == "v.jsonl"
    assert run["data"].pop("heldout")[0]["path"] == "builtin:sums"
    assert run.pop("name") != trial.pop("name")
    assert run == trial


def test_an_arm_changes_a_value_at_its_place_in_a_list():
    arms = ARMS | {
        "mine": {"sources.sums.shots": "1 + 1 = 2\n", "data.train.0.limit": 7, "objectives": [{"kind": "forward_kl"}]}
    }
    grid = StudyGrid(study(arms=arms))
    changed, other = grid.run("mine", {}, 0), grid.run("kl", {}, 0)
    assert [source.shots for source in changed.sources] == ["1 + 1 = 2\n", "", ""]
    assert [source.path for source in changed.sources] == [source.path for source in other.sources]
    assert (changed.data.train[0].limit, changed.data.train[1].limit) == (7, other.data.train[1].limit)
    with pytest.raises(ConfigError, match=r"s, mine: no entry coder; there are sums, sort, lumi"):
        StudyGrid(study(arms=ARMS | {"mine": {"sources.coder.path": "x"}})).check()


def test_an_arm_may_extend_a_recipe_which_then_lies_below_it():
    arms = ARMS | {"mine": {"extends": "forward_kl", "weighting": {"kind": "mean"}}}
    config = StudyGrid(study(arms=arms)).run("mine", {}, 0)
    assert config.weighting.kind == "mean"
    assert "forward_kl" in [objective.kind for objective in config.objectives]


def test_a_mistake_in_any_setting_of_any_arm_is_found_before_the_first_run():
    tuning = TUNING | {"grid": {"training.learning_rate": [1e-3], "extract.top_k": [10]}}
    tuning["arms"] = {"kl": {"training.learning_rate": [1e-3], "extract.top_k": [0]}}
    with pytest.raises(ConfigError, match="s, kl: extract.top_k: must be at least 1"):
        StudyGrid(study(tuning=tuning), ["evaluation.exact_match=[]"]).check()


@pytest.mark.parametrize("name", ["pivot", "sort"])
def test_an_arm_is_not_called_like_a_model_for_both_stand_in_one_table(name):
    with pytest.raises(ValueError, match=f"no arm may be called {name}, the name of a model; rename it"):
        StudyGrid(study(arms=ARMS | {name: {}})).check()


def test_no_override_takes_a_run_out_of_the_studys_folder():
    config = StudyGrid(study(), ["name=other", "runs=elsewhere", "seed=9"]).run("kl", {}, 1)
    assert (str(config.folder), config.seed) == ("runs/s/kl/seed-1", 1)


def test_a_study_without_tuning_has_one_empty_setting_and_no_trial(tmp_path):
    grid = StudyGrid(study())
    assert grid.settings("kl") == [{}]
    assert grid.check() == 1 + 6
    with pytest.raises(ValueError, match="s has no tuning"):
        grid.trial("kl", {}, 0)


def test_runs_of_small_models_can_be_a_base(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(runs.raw(tmp_path)))
    assert StudyGrid(study(base=str(tmp_path / "base.yaml"))).run("kl", {}, 0).pivot.path.endswith("pivot")


def test_a_mistake_in_an_arm_that_is_named_like_a_method_is_found_at_its_place(tmp_path):
    raw = {"name": "s", "base": "noisy_references", "arms": ARMS | {"forward_kl": 3}, "baseline": "plain"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match=r"study.yaml: arms.forward_kl should be a group of settings, got 3"):
        load(tmp_path / "study.yaml")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw | {"arms": ARMS, "base": {}}))
    with pytest.raises(ConfigError, match=r"study.yaml: base: Input should be a valid string"):
        load(tmp_path / "study.yaml")


@pytest.mark.parametrize("below", [3, [], {"a": 1}, None])
def test_an_arm_that_extends_no_name_is_refused(below):
    with pytest.raises(ValueError, match="arms.kl.extends should be the name of a file or recipe, got"):
        study(arms=ARMS | {"kl": {"extends": below}})


def test_a_study_takes_its_own_name_and_seeds_from_overrides_and_its_runs_the_rest():
    study = load("few_references")
    changed, of_runs = with_overrides(study, ["name=small", "training.max_steps=2", "seeds=[5]"])
    assert (changed.name, changed.seeds, of_runs) == ("small", [5], ["training.max_steps=2"])
    assert changed.arms == study.arms
    with pytest.raises(ConfigError, match="--set: seeds"):
        with_overrides(study, ["seeds=[-1]"])


def test_overrides_reach_arms_and_baseline_and_none_is_swallowed():
    study = load("few_references")
    *_, other = study.arms
    changed, of_runs = with_overrides(study, [f"baseline={other}", f"arms.{other}.training.max_steps=7"])
    assert (changed.baseline, of_runs) == (other, [])
    assert changed.arms[other] == {
        **study.arms[other],
        "training": {**study.arms[other].get("training", {}), "max_steps": 7},
    }
    with pytest.raises(ConfigError, match="baseline is finetuned, and arms are"):
        with_overrides(study, ["baseline=finetuned"])
    with pytest.raises(ConfigError, match=f"arms are .*{other}; write another one into the file"):
        with_overrides(study, ["arms.finetuned.seed=1"])
    for given in ("seed=3", "store=elsewhere", "evaluation.original_models=true"):
        with pytest.raises(ConfigError, match=f"--set {given}: "):
            with_overrides(study, [given])


def test_a_run_and_a_study_are_told_apart(tmp_path):
    (tmp_path / "run.yaml").write_text("pivot: {path: x}\n")
    with pytest.raises(ConfigError, match=r"run.yaml is the configuration of a run, which has no arms: fusion run "):
        load(tmp_path / "run.yaml")
    (tmp_path / "study.yaml").write_text("base: tales\narms: {a: {}, b: {}}\n")
    with pytest.raises(ConfigError, match=r"study.yaml is a study, which has arms: fusion study "):
        loading.load(tmp_path / "study.yaml")
