"""Estimates of what a run will take, before anything runs: examples, tokens, disk, memory, FLOPs, time, misfits."""

from fusion.plan.counts import describe_domains
from fusion.plan.estimates import RunPlan, StageEstimate
from fusion.plan.stages import plan
from fusion.plan.table import plan_tables

__all__ = ["RunPlan", "StageEstimate", "describe_domains", "plan", "plan_tables"]
