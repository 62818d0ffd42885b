"""PRXPixelPipeline: a transformer that says x_0, on a flow whose noise is twice the usual.

The pipeline divides z - x_0 by no less than 0.05 to make a velocity. Below u = 0.05 that damps the
last moves, and it is part of what the model does: the estimate here is the one that the pipeline's
scheduler acts on, z - u v.

With guidance, diffusers 0.42 hands the transformer two times whatever the number of pictures, and
stops at more than one of them; here every row is told its time.
"""

from __future__ import annotations

from asymflow.models.diffusers.pipelines import Family

PIPELINE = "PRXPixelPipeline"
FAMILY = Family(
    network="transformer",
    conditions=("encoder_hidden_states", "attention_mask"),
    normalised=True,
    floor=0.05,
    noise="noise_scale",
    timed=True,
)
