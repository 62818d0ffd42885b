"""PRXPixelPipeline: a transformer that predicts x_0, on a flow with twice the usual noise.

The pipeline computes the velocity v = (z - x_0) / max(u, 0.05). Below u = 0.05 this damps the last
moves. We keep that behaviour: the estimate here is the one that the pipeline's scheduler uses,
z - u v.

With guidance, diffusers 0.42 passes two times to the transformer for any number of pictures, and
fails for more than one; here every row gets its time.
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
