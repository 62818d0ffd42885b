"""JiT and AsymFlow-JiT transformers."""

from asymflow.models.jit.adapter import JitAdapter as JitAdapter
from asymflow.models.jit.adapter import adapt as adapt
from asymflow.models.jit.adapter import load as load
from asymflow.models.jit.adapter import plan as plan
from asymflow.models.jit.checkpoint import recognises as recognises
