"""A round ends when its pivot has moved too far, wherever it was cut off before."""

from types import SimpleNamespace

import pytest

from fusion.training.rollouts.early_stop import StopAtClipRatio
from fusion.training.trainer import NothingLeftToTrain


def entry(step, **ratios):
    return {"loss": 1.0, "step": step} | {f"{kind}/clip_ratio": value for kind, value in ratios.items()}


CASES = [
    ([entry(1, policy_gradient=0.1), entry(2, policy_gradient=0.3)], True),
    ([entry(1, policy_gradient=0.3), entry(2, policy_gradient=0.1)], False),
    ([entry(1, policy_gradient=0.1, group_reward=0.21)], True),
    ([entry(1, policy_gradient=0.2)], False),
    ([entry(1, policy_gradient=0.3), {"eval_bits_per_byte": 1.0, "step": 1}], True),
    ([entry(1)], False),
    ([], False),
]


@pytest.mark.parametrize(("history", "ends"), CASES)
def test_the_last_step_decides(history, ends, capsys):
    stop, state, control = (
        StopAtClipRatio(0.2),
        SimpleNamespace(log_history=history, is_world_process_zero=True, global_step=len(history), max_steps=9),
        SimpleNamespace(should_training_stop=False),
    )
    stop.on_log(None, state, control)
    assert control.should_training_stop is ends
    assert ("of 9 steps" in capsys.readouterr().out) is ends
    if ends:
        with pytest.raises(NothingLeftToTrain):
            stop.on_epoch_begin(None, state, control)
    else:
        stop.on_epoch_begin(None, state, control)
