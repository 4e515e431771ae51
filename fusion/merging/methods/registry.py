"""Every merge method. δ_s = θ_s - θ_0 is what model s changed; a method looks at one tensor at a time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fusion.merging.methods.base import Method
from fusion.merging.methods.dropped import DELLA, DARELinear, DARETies, DELLALinear
from fusion.merging.methods.linear import Linear
from fusion.merging.methods.sce import SCE
from fusion.merging.methods.sparse import TaskArithmetic
from fusion.merging.methods.sphere import Karcher, ModelStock, MultiSlerp, NuSlerp, Slerp
from fusion.merging.methods.trimmed import TIES, Breadcrumbs, BreadcrumbsTies

ALL: tuple[type[Method], ...] = (
    Linear, Slerp, NuSlerp, MultiSlerp, Karcher, ModelStock, TaskArithmetic, TIES, DARELinear, DARETies, DELLALinear,
    DELLA, Breadcrumbs, BreadcrumbsTies, SCE,
)  # fmt: skip
"""Every method, in the order of the documentation."""

AnyMethod = Annotated[
    Linear | Slerp | NuSlerp | MultiSlerp | Karcher | ModelStock | TaskArithmetic | TIES | DARELinear | DARETies
    | DELLALinear | DELLA | Breadcrumbs | BreadcrumbsTies | SCE,
    Field(discriminator="kind"),
]  # fmt: skip
"""What a configuration may name."""
