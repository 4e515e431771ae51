"""What a run will take, said before anything runs: examples, tokens, disk, memory, work, time, and what would not fit."""

from fusion.plan.counts import describe_domains
from fusion.plan.estimates import RunPlan, StageEstimate
from fusion.plan.stages import plan
from fusion.plan.table import plan_tables

__all__ = ["RunPlan", "StageEstimate", "describe_domains", "plan", "plan_tables"]
