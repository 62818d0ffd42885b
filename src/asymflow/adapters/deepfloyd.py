"""DeepFloyd IF, stage I: a U-Net in pixels with a learned variance, guided by a text encoder.

A plan has no noise of its own, so the variance is left out and the mean is followed as DDIM does.
"""

from __future__ import annotations

from asymflow.adapters.pipelines import Family

PIPELINE = "IFPipeline"
FAMILY = Family(network="unet", state="sample")
