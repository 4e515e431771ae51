"""How the pivot did after each round: for the terminal, the page and the model card."""

from fusion.report.rounds.scores import RoundRow, kept_sentence, round_name, round_rows
from fusion.report.rounds.section import RoundSamples, round_samples
from fusion.report.rounds.terminal import rounds_table

__all__ = ["RoundRow", "RoundSamples", "kept_sentence", "round_name", "round_rows", "round_samples", "rounds_table"]
