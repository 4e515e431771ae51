"""What a run computes on: names of processor and GPUs, cores, processes."""

import os
import platform

import torch

from fusion.stages.hardware import hardware

FACTS = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2.00GHz\n"


def facts(tmp_path, text=FACTS):
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    return file


def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_cores_are_those_that_may_be_used(tmp_path, monkeypatch):
    no_gpu(monkeypatch)
    for cores, words in (({0}, "1 core of Some CPU @ 2.00GHz"), ({0, 5}, "2 cores of Some CPU @ 2.00GHz")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False)
        assert hardware(facts(tmp_path)) == words


def test_equal_gpus_are_counted(tmp_path, monkeypatch):
    names = ["NVIDIA H200", "NVIDIA H200", "NVIDIA L4"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: names[number])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = hardware(facts(tmp_path))
    assert found == "2 x NVIDIA H200, 1 x NVIDIA L4, 2 cores of Some CPU @ 2.00GHz, 3 processes"


def test_a_system_that_says_nothing_of_its_processor_names_its_kind(tmp_path, monkeypatch):
    no_gpu(monkeypatch)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for file in (tmp_path / "none", facts(tmp_path, "processor\t: 0\nmodel name\t:\n")):
        assert hardware(file) == "8 cores of arm64"
