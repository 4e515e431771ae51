"""Starting a program on several processes and machines: resources to a command line, and to the text that it reads."""

from fusion_launch.execute import execute
from fusion_launch.launchers import LAUNCHERS, prepare
from fusion_launch.resources import Launch, Program, Resources, read_hostfile

__all__ = ["LAUNCHERS", "Launch", "Program", "Resources", "execute", "prepare", "read_hostfile"]
