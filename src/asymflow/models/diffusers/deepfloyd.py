"""DeepFloyd IF: U-Nets in pixels with a learned variance, guided by a text encoder.

Two stages make 64 and 256 pixels. The second gets the picture of the first in extra channels,
enlarged and with noise of a separate level. Both support image-to-image and inpainting. (For a
third stage, its authors use an upscaler that works on latents.)

Plans are deterministic, so the variance is ignored and the mean is followed as in DDIM.
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
"""Class labels are the noise levels of the low-resolution picture beside the state."""

FAMILIES = {
    "IFPipeline": SMALL,
    "IFImg2ImgPipeline": SMALL,
    "IFInpaintingPipeline": SMALL,
    "IFSuperResolutionPipeline": LARGER,
    "IFImg2ImgSuperResolutionPipeline": LARGER,
    "IFInpaintingSuperResolutionPipeline": LARGER,
}
