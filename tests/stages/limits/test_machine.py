"""What this machine lacks is said before the run, and of a plan for another machine only mentioned."""

import pytest
import torch

from fusion import pipeline
from fusion.stages.context import RunContext
from fusion.stages.limits import machine
from fusion.stages.limits.refuse import refuse_machine, refuse_plan
from tests.helpers import runs


def context(folder, **changes) -> RunContext:
    raw = runs.raw(folder)
    training = raw["training"] | changes.pop("training", {})
    return RunContext(runs.config(folder, training=training, **changes))


def refused(folder, **changes) -> str:
    with pytest.raises(ValueError) as error:
        refuse_machine(context(folder, **changes))
    return str(error.value)


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """A machine without a GPU and without packages that only some runs need."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "is_installed", lambda package: package == "tensorboard")
    monkeypatch.setattr(machine, "_is_importable", lambda _module: False)


@pytest.mark.parametrize(
    ("optimizer", "package"),
    [
        ("adamw_bnb_8bit", "bitsandbytes"),
        ("paged_lion_32bit", "bitsandbytes"),
        ("rmsprop_bnb_8bit", "bitsandbytes"),
        ("galore_adamw_layerwise", "galore-torch"),
        ("schedule_free_sgd", "schedulefree"),
        ("lomo", "lomo-optim"),
        ("adamw_torch_8bit", "torchao"),
    ],
)
def test_an_optimizer_of_another_package_names_it(tmp_path, optimizer, package):
    arguments = {"optim": optimizer} | ({"optim_target_modules": "all-linear"} if "galore" in optimizer else {})
    assert f"training.optim {optimizer} needs the package {package}" in refused(tmp_path, training=arguments)


def test_every_optimizer_of_transformers_is_one_of_torch_or_has_its_package(tmp_path):
    from transformers.training_args import OptimizerNames

    own = {"adafactor", "sgd", "adagrad", "rmsprop", "adamw_torch", "adamw_torch_fused", "adamw_hf"}
    rest = {name.value for name in OptimizerNames} - own
    assert len(rest) > 20
    assert not [name for name in rest if not any(name.startswith(start) for start in machine.OPTIMIZERS)]


def test_a_logger_that_is_not_installed_names_its_package(tmp_path):
    said = refused(tmp_path, training={"report_to": ["tensorboard", "wandb"]})
    assert "training.report_to wandb needs the package wandb" in said
    assert "tensorboard" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"fp16": True}}, "training.fp16 needs a GPU"),
        ({"training": {"tf32": True}}, "training.tf32 needs a GPU"),
        ({"training": {"use_liger_kernel": True}}, "training.use_liger_kernel needs the package liger-kernel"),
        ({"adapter": {"kind": "lora"}}, "adapter needs the package peft"),
        ({"adapter": {"kind": "qlora"}}, "adapter.kind qlora needs a GPU"),
        (
            {"objectives": [{"kind": "gromov_wasserstein", "solver": "pot"}]},
            "objectives[0] (gromov_wasserstein) needs the package logit-fusion[gw]",
        ),
        ({"engine": {"kind": "zero2"}}, "engine.kind zero2 needs the package deepspeed"),
        ({"engine": {"kind": "ddp"}}, "engine.kind is ddp, but there is one process"),
    ],
)
def test_what_the_run_needs_and_the_machine_lacks_is_named(tmp_path, changes, said):
    assert said in refused(tmp_path, **changes)


def test_a_fine_tuning_of_a_source_is_looked_at_too(tmp_path):
    sources = runs.raw(tmp_path)["sources"]
    sources[0]["fine_tune"] = {"training": {"fp16": True}}
    assert "sources.neox.fine_tune.training.fp16 needs a GPU" in refused(tmp_path, sources=sources)


def test_a_vllm_source_names_the_package(tmp_path):
    sources = runs.raw(tmp_path)["sources"]
    sources[0]["backend"] = {"kind": "vllm"}
    said = refused(tmp_path, sources=sources, objectives=[{"kind": "forward_kl"}])
    assert "source neox has backend kind: vllm, which needs the package vllm" in said


def test_a_gpu_without_bfloat16_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla K80")
    notes = refuse_plan(context(tmp_path, training={"bf16": True}))
    assert notes == ["training.bf16: Tesla K80 cannot compute in bfloat16; set training.fp16 instead."]


def test_a_laptop_plans_what_it_cannot_run(tmp_path):
    ours = context(tmp_path, training={"fp16": True, "optim": "adamw_bnb_8bit"}, plan={"gpu": "h100"})
    notes = refuse_plan(ours)
    assert [note.split(" needs ")[0] for note in notes] == ["training.optim adamw_bnb_8bit", "training.fp16"]


@pytest.mark.parametrize("place", ["runs", "store"])
def test_a_folder_that_cannot_be_written_is_named_with_its_setting(tmp_path, place):
    (tmp_path / "file").write_text("")
    said = refused(tmp_path, **{place: str(tmp_path / "file" / "inside")})
    assert f"{place}: {tmp_path / 'file' / 'inside'}" in said
    assert f"cannot be written ({tmp_path / 'file'} is a file)" in said


def test_weights_that_are_not_there_are_missed_before_the_pivot_is_read(tmp_path):
    (runs.models(tmp_path)["qwen"] / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="qwen has neither"):
        pipeline.run(runs.config(tmp_path))
    assert not (tmp_path / "runs" / "small" / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": {"kind": "lora", "target_modules": ["q_prj"]}}, "the pivot has no linear layer q_prj; it has"),
        (
            {"quantization_aware_training": {"kind": "int4", "modules_to_not_convert": ["o_prj"]}},
            "there is no linear layer o_prj; there are",
        ),
    ],
)
def test_layers_that_the_pivot_does_not_have_are_named_before_extraction(tmp_path, changes, said):
    assert said in refused(tmp_path, **changes)


def test_a_key_of_a_server_that_is_not_set_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    sources = runs.raw(tmp_path)["sources"]
    sources[0]["backend"] = {"kind": "openai", "url": "http://here/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"}
    said = refused(tmp_path, sources=sources, objectives=[{"kind": "forward_kl"}])
    assert "source neox: backend.api_key_env names NO_SUCH_KEY, which is not set" in said


def test_a_cache_that_is_not_imported_yet_is_named(tmp_path):
    sources = runs.raw(tmp_path)["sources"]
    sources[0]["backend"] = {"kind": "imported"}
    said = refused(tmp_path, sources=sources, objectives=[{"kind": "forward_kl"}])
    assert "source neox has backend kind: imported, and its cache is not there yet" in said
