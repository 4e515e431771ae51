"""Which engines there are, what they ask of Trainer, and what is refused; trainings with them are in test_spread."""

import json
import sys

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from fusion.config.loading import ConfigError
from fusion.training import checkpoint
from fusion.training.engine import DEEPSPEED, FILES, Engine, engine_arguments, read_deepspeed_config
from fusion.training.engine_checks import check, engine_of, running
from fusion.training.fit import training_arguments
from tests.helpers import runs


def processes(monkeypatch, count):
    monkeypatch.setenv("WORLD_SIZE", str(count))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")


def test_auto_is_one_model_in_each_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Engine().name == "single"
    processes(monkeypatch, 4)
    assert Engine().name == "ddp"
    assert Engine(kind="zero3").name == "zero3"


@pytest.mark.parametrize(("kind", "offload"), FILES)
def test_each_deepspeed_file_is_of_its_stage_and_leaves_sizes_to_trainer(kind, offload):
    config = engine_arguments(Engine(kind=kind, offload=offload), "float32")["deepspeed"]
    zero = config["zero_optimization"]
    assert zero["stage"] == int(kind[-1])
    assert ("offload_optimizer" in zero, "offload_param" in zero) == (offload != "none", offload == "all")
    assert config["train_batch_size"] == config["gradient_clipping"] == config["bf16"]["enabled"] == "auto"
    assert "optimizer" not in config  # Trainer's, which needs no compiler


def test_every_deepspeed_file_that_is_shipped_is_used():
    assert {file.name for file in DEEPSPEED.glob("*.json")} == set(FILES.values())


def test_deepspeed_keeps_bfloat16_weights_with_float32_copies():
    assert engine_arguments(Engine(kind="zero2"), "bfloat16")["bf16"] is True
    assert "bf16" not in engine_arguments(Engine(kind="zero2"), "float32")


def test_a_checkpoint_for_any_number_of_processes_is_announced_to_deepspeed():
    made = engine_arguments(Engine(kind="zero1"), "float32", universal=True)
    assert made["deepspeed"]["checkpoint"] == {"load_universal": True}


def test_a_file_of_the_users_own_must_be_of_the_stage_that_is_asked_for(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"zero_optimization": {"stage": 2}, "steps_per_print": 7}))
    assert read_deepspeed_config(Engine(kind="zero2", deepspeed_config=str(mine)))["steps_per_print"] == 7
    with pytest.raises(ValueError, match=r"mine.json asks for ZeRO stage 2, engine.kind is zero3"):
        read_deepspeed_config(Engine(kind="zero3", deepspeed_config=str(mine)))
    with pytest.raises(ValueError, match=r"there is no file /no/such.json; ours are in .*deepspeed"):
        read_deepspeed_config(Engine(kind="zero3", deepspeed_config="/no/such.json"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"kind": "zero1", "offload": "all"},
            "zero1 cannot offload all; possible are zero2 with optimizer, zero3 with all",
        ),
        (
            {"kind": "ddp", "deepspeed_config": "x.json"},
            "config is a DeepSpeed JSON, kind is ddp; set kind to zero1, zero2 or zero3",
        ),
        (
            {"kind": "zero3", "deepspeed_config": "x.json", "offload": "all"},
            "offload is said by your own deepspeed_config",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Engine(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"kind": "zero4"}}, "engine.kind"),
        (
            {"engine": {"global_batch_size": 8}, "training": {"gradient_accumulation_steps": 2}},
            "leave out training.gradient_acc",
        ),
        ({"engine": {"kind": "zero3"}, "adapter": {"kind": "qlora"}}, "zero3 cannot shard weights of 4 bits"),
        ({"engine": {"kind": "zero3"}, "pivot": {"path": "a.gguf"}}, "zero3 loads what it trains in shards"),
        ({"training": {"deepspeed": "x.json"}}, "training: deepspeed is chosen by engine"),
        ({"training": {"ddp_backend": "mpi"}}, "training: ddp_backend is set by the run itself"),
    ],
)
def test_configurations_that_cannot_be_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        runs.config(tmp_path, **changes)


def test_a_step_has_the_same_examples_whatever_the_number_of_processes(monkeypatch):
    engine, given = Engine(global_batch_size=24), {"per_device_train_batch_size": 4}
    found = {}
    for count in (1, 2, 3, 24):
        processes(monkeypatch, count)
        made = engine.batch_arguments(given)
        found[count] = made["per_device_train_batch_size"], made["gradient_accumulation_steps"]
    assert found == {1: (4, 6), 2: (4, 3), 3: (4, 2), 24: (1, 1)}
    processes(monkeypatch, 5)
    with pytest.raises(ValueError, match="engine.global_batch_size is 24, which 5 processes cannot share equally"):
        engine.batch_arguments(given)


def test_engines_that_do_not_go_with_the_number_of_processes_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="engine.kind is ddp, but there is one process"), running(Engine(kind="ddp")):
        pass
    processes(monkeypatch, 2)
    with pytest.raises(ValueError, match="engine.kind is single, but there are 2"), running(Engine(kind="single")):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what a GPU can do")
def test_what_needs_a_gpu_says_so(tmp_path):
    with pytest.raises(ValueError, match="there is no GPU"), running(Engine(kind="fsdp2", offload="all")):
        pass
    with pytest.raises(ValueError, match="training.use_liger_kernel needs a GPU"):
        training_arguments({"use_liger_kernel": True}, tmp_path, 0)


def test_a_model_that_is_not_in_the_engine_that_was_asked_for_is_refused():
    model = nn.Linear(2, 2)
    assert engine_of(model) == "single"
    check(Engine(kind="single"), model)
    with pytest.raises(
        ValueError, match=r"engine.kind is zero2, but the model ended up in single \(Linear, 1 processes\)"
    ):
        check(Engine(kind="zero2"), model)


def a_checkpoint(folder, engine, count):
    folder.mkdir()
    (folder / "engine.json").write_text(json.dumps({"engine": engine, "processes": count}))
    return folder


def test_a_checkpoint_of_another_engine_is_refused(tmp_path):
    place = a_checkpoint(tmp_path / "checkpoint-5", "zero2", 1)
    with pytest.raises(ValueError, match="was made with engine.kind=zero2, this run has single"):
        checkpoint.make_universal(place, Engine())


def test_single_and_ddp_go_on_with_each_others_checkpoints(tmp_path):
    assert not checkpoint.make_universal(a_checkpoint(tmp_path / "checkpoint-5", "ddp", 4), Engine(kind="single"))


def test_a_checkpoint_that_cannot_be_converted_names_the_command(tmp_path):
    place = a_checkpoint(tmp_path / "checkpoint-5", "zero2", 4)
    (place / "latest").write_text("global_step5")
    with pytest.raises(ValueError, match=r"(?s)cannot be made to fit .*Go on with 4 processes.*ds_to_universal"):
        checkpoint.make_universal(place, Engine(kind="zero2"))


def marked(folder, step, limit=None):
    """A checkpoint as `CheckpointMarks` leaves it, which then removes the oldest."""
    place = a_checkpoint(folder / f"checkpoint-{step}", "single", 1)
    (place / "optimizer.pt").write_bytes(b"moments")
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, save_total_limit=limit)
    checkpoint.CheckpointMarks().on_save(arguments, TrainerState(global_step=step), TrainerControl())
    return place


DAMAGE = {
    "cut off while it was written": lambda place: (place / "files.json").unlink(),
    "optimizer.pt is gone": lambda place: (place / "optimizer.pt").unlink(),
    "optimizer.pt has 0 bytes, and 7 were written": lambda place: (place / "optimizer.pt").write_bytes(b""),
    "optimizer.pt has not the contents": lambda place: (place / "optimizer.pt").write_bytes(b"moMents"),
    "its files.json is damaged": lambda place: (place / "files.json").write_text(""),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_taken(tmp_path, said, capsys):
    before, newest = marked(tmp_path, 5), marked(tmp_path, 10)
    DAMAGE[said](newest)
    assert checkpoint.last_checkpoint(tmp_path) == before
    assert said in capsys.readouterr().out
    assert not newest.exists()
    assert list(tmp_path.glob("damaged-checkpoint-10-*"))


def names(folder):
    return sorted(place.name for place in folder.iterdir())


def test_the_checkpoints_of_the_fewest_steps_go_whatever_the_times_of_their_folders(tmp_path):
    marked(tmp_path, 5), marked(tmp_path, 10)
    (tmp_path / "checkpoint-5/copied").touch()  # so it is the newest folder
    marked(tmp_path, 15, limit=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-15"]
    marked(tmp_path, 20, limit=None)
    assert len(names(tmp_path)) == 3
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, save_total_limit=2)
    checkpoint.CheckpointMarks().on_train_begin(arguments, TrainerState(), TrainerControl())
    assert names(tmp_path) == ["checkpoint-15", "checkpoint-20"]


def test_a_checkpoint_loses_its_mark_before_it_is_removed_and_goes_at_the_next_start(tmp_path, monkeypatch, capsys):
    def killed(*_, **__):
        raise KeyboardInterrupt

    marked(tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            marked(tmp_path, 10, limit=1)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-5"]
    assert not (tmp_path / "checkpoint-5/files.json").exists()
    assert checkpoint.last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert names(tmp_path) == ["checkpoint-10"]
    assert capsys.readouterr().out == ""


def test_without_a_whole_checkpoint_there_is_none(tmp_path):
    a_checkpoint(tmp_path / "checkpoint-5", "single", 1)
    assert checkpoint.last_checkpoint(tmp_path) is None


def test_zero_without_deepspeed_says_what_to_install(monkeypatch):
    processes(monkeypatch, 1)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match="pip install 'logit-fusion"), running(Engine(kind="zero2")):
        pass
