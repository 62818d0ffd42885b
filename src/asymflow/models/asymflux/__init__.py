"""AsymFLUX: FLUX.2 klein with an adapter for pixel space."""

from asymflow.models.asymflux.adapter import GUIDANCE as GUIDANCE
from asymflow.models.asymflux.adapter import AsymFluxAdapter as AsymFluxAdapter
from asymflow.models.asymflux.adapter import adapt as adapt
from asymflow.models.asymflux.adapter import load as load
from asymflow.models.asymflux.adapter import plan as plan
