"""MiniT2I text-to-image transformers."""

from asymflow.models.minit2i.adapter import MiniT2IAdapter as MiniT2IAdapter
from asymflow.models.minit2i.adapter import adapt as adapt
from asymflow.models.minit2i.adapter import load as load
from asymflow.models.minit2i.adapter import plan as plan
from asymflow.models.minit2i.checkpoint import recognises as recognises
