"""Networks of EDM and guided-diffusion: as plain callables, and from files."""

from asymflow.models.edm.adm_checkpoint import load as load_guided_diffusion
from asymflow.models.edm.callables import CallableAdapter as CallableAdapter
from asymflow.models.edm.callables import edm as edm
from asymflow.models.edm.callables import guided_diffusion as guided_diffusion
from asymflow.models.edm.checkpoint import load as load

__all__ = ["CallableAdapter", "edm", "guided_diffusion", "load", "load_guided_diffusion"]
