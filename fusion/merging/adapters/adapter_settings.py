"""adapter_config.json of a LoRA adapter: what it says of scales, and the settings that cannot be folded into weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusion.core.text_files import read_object
from fusion.models.checkpoint_files import ADAPTER_CONFIG

FOLD_FIRST = "Fold it into its own model with peft (merge_and_unload, then save_pretrained) and merge the result."
NOT_WEIGHTS = (
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING", "PROMPT_TUNING",
    "P_TUNING", "SHADOW", "XLORA",
)  # fmt: skip
"""Kinds of adapters that change what a model is given, or what each token passes through, and not its weights."""
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base as it is."""
CONVERTIBLE_INITS = ("pissa", "olora", "corda", "lora_ga")
"""Those that take their first B A out of the base, which peft can put back when it saves; `pissa_niter_N` is one too."""
CHANGES_BASE = {
    "kasa_config": "which cuts the smallest singular values out of the base",
    "layer_replication": "which makes a deeper model of the base's layers",
    "megatron_config": "whose matrices are split over devices",
    "monteclora_config": "which draws its weights at random",
    "target_parameters": "which changes parameters that are no module's, such as stacked experts",
    "use_bdlora": "which stores blocks of its matrices",
    "use_qalora": "which averages groups of inputs",
}
"""Settings that mean more than B A, and why."""
BY_TOKEN = {
    "alora_invocation_tokens": "which acts behind these tokens only",
    "arrow_config": "which chooses among adapters for each token",
}
"""Settings that no weights can express, and why."""
UNDERSTOOD = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config", "megatron_core",
    "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "trainable_token_indices", "use_dora", "use_rslora",
    "velora_config",
}  # fmt: skip
"""Settings that are followed, or change nothing of what stored weights mean."""


class FollowedSettings(BaseModel):
    """The settings that say how factors become weights, in the forms that peft writes; others are looked at by name."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    r: int = Field(gt=0)
    lora_alpha: float
    rank_pattern: dict[str, Annotated[int, Field(gt=0)]] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    fan_in_fan_out: bool | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    base_model_name_or_path: str | None = None


@dataclass(frozen=True)
class AdapterSettings:
    """The settings of a LoRA adapter that can be folded in; `read` checks that it is one."""

    folder: Path
    followed: FollowedSettings

    @staticmethod
    def read(folder: Path) -> AdapterSettings:
        """Read adapter_config.json. Raises ValueError with the setting, its value and the way out."""
        file = folder / ADAPTER_CONFIG
        values = read_object(file)
        _check_kind(folder, values.get("peft_type"))
        _check_init(folder, values.get("init_lora_weights", True))
        for name, value in values.items():
            if value and name not in UNDERSTOOD:
                raise ValueError(_refusal(folder, name, value))
        try:
            return AdapterSettings(folder, FollowedSettings.model_validate(values))
        except ValidationError as error:
            raise ValueError("\n".join(_mistake(file, mistake) for mistake in error.errors())) from None

    def rank(self, module: str) -> int:
        """The rank of the factors of this module."""
        return int(self._by_module("rank_pattern", module, float(self.followed.r)))

    def scale(self, module: str) -> float:
        """What B A is multiplied by in this module: alpha / rank, or alpha / √rank where it is rank-stabilized."""
        rank = self.rank(module)
        alpha = self._by_module("alpha_pattern", module, self.followed.lora_alpha)
        return alpha / (math.sqrt(rank) if self.followed.use_rslora else rank)

    def token_indices(self, module: str) -> list[int]:
        """The tokens whose rows of this module it replaces (`trainable_token_indices`)."""
        indices = self.followed.trainable_token_indices or []
        if isinstance(indices, list):
            return indices
        return next((rows for key, rows in indices.items() if f".{module}".endswith(f".{key}")), [])

    def _by_module(self, patterns: str, module: str, default: float) -> float:
        for pattern, value in (getattr(self.followed, patterns) or {}).items():
            try:
                if re.match(rf"(?:.*\.)?(?:{pattern})$", module):  # as peft matches them
                    return float(value)
            except re.error as error:
                raise ValueError(
                    f"{self.folder / ADAPTER_CONFIG}: {patterns} has {pattern!r}, which is no regular expression "
                    f"({error}); copy the file from where the adapter was trained."
                ) from None
        return default


def _mistake(file: Path, mistake: Any) -> str:
    """What is wrong with one setting, as pydantic says it."""
    place = ".".join(str(part) for part in mistake["loc"])
    value = "" if mistake["type"] == "missing" else f", got {mistake['input']!r}"
    return f"{file}: {place}: {mistake['msg']}{value}. Copy the file from where the adapter was trained."


def _check_kind(folder: Path, kind: Any) -> None:
    if kind == "LORA":
        return
    problem = f"{folder}: peft_type is {kind!r}; only LORA adapters can be folded in. "
    if kind in NOT_WEIGHTS:
        raise ValueError(f"{problem}This kind changes no weights, so there is nothing to merge: leave it out.")
    raise ValueError(problem + FOLD_FIRST)


def _check_init(folder: Path, init: Any) -> None:
    kind = init.lower() if isinstance(init, str) else init
    if kind in PLAIN_INITS:
        return
    if not isinstance(kind, str) or not (kind in ("loftq", *CONVERTIBLE_INITS) or kind.startswith("pissa_niter_")):
        raise ValueError(
            f"{folder}: init_lora_weights is {init!r}, and what that does to the base is not known here. {FOLD_FIRST}"
        )
    convert = (
        "Save it with save_pretrained(..., path_initial_model_for_weight_conversion=INITIAL), which makes a plain LoRA "
        "adapter of it, or fold it"
    )
    raise ValueError(
        f"{folder}: init_lora_weights is {init!r}, which changes the base before training begins, and this adapter fits "
        f"that changed base only. {'Fold it' if kind == 'loftq' else convert} into its changed base with peft "
        "(merge_and_unload) and merge the result; where the base given here is the changed one, write "
        f"init_lora_weights: true into {ADAPTER_CONFIG}."
    )


def _refusal(folder: Path, name: str, value: Any) -> str:
    """Why an adapter with this setting is not folded in."""
    problem = f"{folder}: {name} is {value!r}, "
    if name in BY_TOKEN:
        return f"{problem}{BY_TOKEN[name]}: no weights do that, so it cannot be merged; leave it out."
    if name in CHANGES_BASE:
        return f"{problem}{CHANGES_BASE[name]}: more than low-rank matrices. {FOLD_FIRST}"
    return (
        f"{problem}a setting that is not known here, perhaps of a newer peft. {FOLD_FIRST} If it changes nothing once the "
        f"adapter is trained, take it out of {ADAPTER_CONFIG}."
    )
