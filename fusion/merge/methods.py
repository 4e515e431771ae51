"""Every merge method. δ_s = θ_s - θ_0 is what model s changed; a method looks at one tensor at a time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fusion.merge.averages import SCE, Linear
from fusion.merge.method import Method
from fusion.merge.sparse import (
    DELLA,
    TIES,
    Breadcrumbs,
    BreadcrumbsTies,
    DARELinear,
    DARETies,
    DELLALinear,
    TaskArithmetic,
)
from fusion.merge.sphere import Karcher, ModelStock, MultiSlerp, NuSlerp, Slerp

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
