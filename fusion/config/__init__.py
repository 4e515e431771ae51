"""A run as strict, frozen types. Few rooms know them (see tests/test_arrows.py); stages take plain arguments."""

from fusion.config.data import Data, DataSettings
from fusion.config.models import BUILTIN, ModelSettings, SourceSettings
from fusion.config.preferences import Preferences
from fusion.config.rounds import Rounds
from fusion.config.run import Config, baseline_training, fine_tuning, plain_fine_tuning, preference_config, round_config
from fusion.config.stages import Baseline, Evaluation, Extract, Plan

__all__ = [
    "BUILTIN",
    "Baseline",
    "Config",
    "Data",
    "DataSettings",
    "Evaluation",
    "Extract",
    "ModelSettings",
    "Plan",
    "Preferences",
    "Rounds",
    "SourceSettings",
    "baseline_training",
    "fine_tuning",
    "plain_fine_tuning",
    "preference_config",
    "round_config",
]  # fmt: skip
