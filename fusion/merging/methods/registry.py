"""Every merge method. δ_s = θ_s - θ_0 is the delta of model s, its task vector; a method merges one tensor at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from fusion.merging.methods.base import MergeMethod
from fusion.merging.methods.linear import Linear
from fusion.merging.methods.magnitude_pruning import TIES, Breadcrumbs, BreadcrumbsTies
from fusion.merging.methods.random_pruning import DELLA, DARELinear, DARETies, DELLALinear
from fusion.merging.methods.sce import SCE
from fusion.merging.methods.sphere import Karcher, ModelStock, MultiSlerp, NuSlerp, Slerp
from fusion.merging.methods.task_vectors import TaskArithmetic

METHODS: tuple[type[MergeMethod], ...] = (
    Linear, Slerp, NuSlerp, MultiSlerp, Karcher, ModelStock, TaskArithmetic, TIES, DARELinear, DARETies, DELLALinear,
    DELLA, Breadcrumbs, BreadcrumbsTies, SCE,
)  # fmt: skip
"""Every method, in the order of the documentation; a new one is added here and nowhere else."""

if TYPE_CHECKING:
    AnyMethod = MergeMethod
else:  # built from the list, which a type checker cannot follow
    AnyMethod = Annotated[Union[METHODS], Field(discriminator="kind")]  # noqa: UP007  (a union of a tuple)
    """What a configuration may name: the union of all methods, told apart by their `kind`."""
