"""The training that rounds begin from, that of each round, and the one that is kept."""

from __future__ import annotations

from pathlib import Path

from fusion.config import Config
from fusion.core.text_files import read_object
from fusion.runtime.artifacts import write_json
from fusion.training import MERGED

REDO = "fusion rounds"
"""The command that makes again what belongs to rounds."""
ROUNDS = "rounds"
"""Name of the result of rounds, in tables and folders."""
PREFERENCES = "preferences"
"""Name of the result of preferences."""


def round_folder(config: Config, number: int) -> Path:
    """Return the folder of the training of a round; of round 0, the first training, which rounds begin from."""
    if number == 0:
        return config.folder / "train" / (MERGED if config.chosen == "pairwise" else config.chosen)
    return config.folder / ROUNDS / str(number) / "train" / "unified"


def keep_round(config: Config, number: int) -> None:
    """Write down which round is the result."""
    write_json(config.folder / ROUNDS / "kept.json", {"round": number})


def kept_round(config: Config) -> int:
    """Return the number of the round that is the result. Raises ValueError where rounds are not done."""
    file = config.folder / ROUNDS / "kept.json"
    if not file.exists():
        raise ValueError(f"{file} is not there: the rounds of {config.name} are not done. Run `fusion rounds` first.")
    return int(read_object(file)["round"])


def result_folder(config: Config, name: str) -> Path:
    """Return the folder of the training that is the result `name`: a strategy, rounds, preferences, or the baseline."""
    if name == PREFERENCES:
        return config.folder / PREFERENCES / "train" / "unified"
    if name == ROUNDS:
        return round_folder(config, kept_round(config))
    return config.folder / "train" / (MERGED if name == "pairwise" else name)
