"""Launchers that start a program on several processes and machines: local, torchrun, DeepSpeed, Slurm and Kubernetes."""

from fusion_launch.execute import execute
from fusion_launch.launchers import LAUNCHERS, prepare
from fusion_launch.resources import Launch, Program, Resources, read_hostfile

__all__ = ["LAUNCHERS", "Launch", "Program", "Resources", "execute", "prepare", "read_hostfile"]
