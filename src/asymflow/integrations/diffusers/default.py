"""A plan for a pipeline that needs no measuring: our best solver on the pipeline's own grid.

It claims nothing: what it keeps is not known before it is measured on the weights at hand.
"""

from __future__ import annotations

import inspect
from typing import Any

from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan
from asymflow.integrations.diffusers.original import ENOUGH, default_steps
from asymflow.integrations.diffusers.proposals import refined
from asymflow.models.diffusers.pipelines import Family

DEFAULT = "default"
SHARE = 0.4
"""Of the pipeline's own number of steps. A solver of second order is as near to the limit in fewer
steps than one of first order."""
LATE = 0.1
"""Time below which the plan does without guidance, which hardly changes the picture there."""


def default(pipe: Any, family: Family) -> Plan:
    """The plan, of at least two steps."""
    convention = family.convention(pipe)
    wanted = max(2, round(SHARE * min(default_steps(pipe), ENOUGH)))
    grids = (refined(convention, count) for count in range(wanted, 0, -1))
    plain = convention.times(min(wanted, convention.most or wanted))
    grid = next((grid for grid in grids if len(grid) - 1 <= wanted), plain)
    guided = "guidance_scale" in inspect.signature(pipe.__call__).parameters
    interval = (LATE if guided else 0.0, 1.0)
    return plan_of(grid, solver="corrected2", guidance_interval=interval, name=DEFAULT)
