"""The type that `auto` stands for, by machine."""

import pytest
import torch

from fusion.config.stages import Extract
from fusion.models.precision import preferred_dtype


@pytest.mark.parametrize(
    ("flags", "dtype"), [("avx2 amx_bf16 amx_tile", "bfloat16"), ("avx2 avx512_bf16", "float32"), (None, "float32")]
)
def test_a_cpu_computes_in_bfloat16_where_it_has_amx(tmp_path, monkeypatch, flags, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert preferred_dtype(tmp_path / "cpuinfo") == dtype


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bfloat16_where_it_has_it(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert preferred_dtype() == dtype


def test_what_is_said_is_what_is_meant():
    assert Extract(dtype="float16").resolved_dtype == "float16"
    assert Extract(dtype="auto").resolved_dtype in ("bfloat16", "float32")
    assert Extract().resolved_dtype == "float32"
