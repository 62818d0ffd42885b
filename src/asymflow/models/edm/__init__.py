"""Networks of EDM and guided-diffusion."""

from asymflow.models.edm.callables import CallableAdapter as CallableAdapter
from asymflow.models.edm.callables import edm as edm
from asymflow.models.edm.callables import guided_diffusion as guided_diffusion
