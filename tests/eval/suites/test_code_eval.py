"""The sandboxed metric of lm-eval's own code tasks: pass@1 of programs, and nothing else."""

import pytest

from fusion_eval.suites.code_eval import SandboxedCodeEval


def test_code_eval_counts_the_programs_that_pass():
    share, reasons = SandboxedCodeEval().compute(
        ["assert f() == 1", "assert f() == 1"], [["def f(): return 1"], ["f = 2"]]
    )
    assert share == {"pass@1": 0.5}
    assert reasons[0] == ""
    assert "TypeError" in reasons[1]


def test_code_eval_refuses_other_counts():
    with pytest.raises(ValueError, match="Only pass@1"):
        SandboxedCodeEval().compute(["assert True"], [["a", "b"]])
