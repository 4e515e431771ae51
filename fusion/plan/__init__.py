"""What a run will take, said before anything runs: examples, tokens, disk, memory, work, time, and what would not fit."""

from fusion.plan.counts import domains
from fusion.plan.planner import Estimate, Plan
from fusion.plan.stages import plan
from fusion.plan.table import tables_of_plan

__all__ = ["Estimate", "Plan", "domains", "plan", "tables_of_plan"]
