"""DeepFloyd IF: U-Nets in pixels with a learned variance, guided by a text encoder.

Two stages make 64 and 256 pixels. The second is shown the picture of the first, enlarged and with
noise of a level of its own, behind the channels of its state. Both can begin with a picture, and
keep a part of it. (For a third stage, its authors use an upscaler that works on latents.)

A plan has no noise of its own, so the variance is left out and the mean is followed as DDIM does.
"""

from __future__ import annotations

from asymflow.models.diffusers.pipelines import Family

SMALL = Family(network="unet", state="sample")
LARGER = Family(
    network="unet",
    state="sample",
    conditions=("encoder_hidden_states", "class_labels"),
    beside=True,
)
"""Class labels are the levels of noise on the picture that is shown beside the state."""

FAMILIES = {
    "IFPipeline": SMALL,
    "IFImg2ImgPipeline": SMALL,
    "IFInpaintingPipeline": SMALL,
    "IFSuperResolutionPipeline": LARGER,
    "IFImg2ImgSuperResolutionPipeline": LARGER,
    "IFInpaintingSuperResolutionPipeline": LARGER,
}
