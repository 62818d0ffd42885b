"""Requests of AUTOMATIC1111's API. Clients send many more fields, which have no meaning here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, model_validator

from asymflow.server.schemas import Sent, Side

PICTURES = 16
"""Maximal number of pictures of a call."""
_PROMPT = 32_000
_Text = Annotated[str, Field(max_length=_PROMPT)]
_Count = Annotated[int, Field(ge=1, le=PICTURES)]
_Encoded = Annotated[str, Field(max_length=100_000_000)]


class Txt2Img(Sent):
    """A call of `txt2img`; what is null or left out is chosen by the card of the model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _as_given(cls, data: Any) -> Any:
        """Remove null, and sizes of 0, which clients send for defaults."""
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        sides = ("width", "height")
        return {
            name: value
            for name, value in given.items()
            if value is not None and not (name in sides and value == 0)
        }

    prompt: _Text = ""
    negative_prompt: _Text = ""
    styles: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    seed: Annotated[int, Field(ge=-1, lt=2**53)] = -1
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    cfg_scale: Annotated[float, Field(gt=0, le=100)] | None = None
    width: Side | None = None
    height: Side | None = None
    batch_size: _Count = 1
    n_iter: _Count = 1
    override_settings: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    send_images: bool = True

    @model_validator(mode="after")
    def _check(self) -> Txt2Img:
        if self.count > PICTURES:
            raise ValueError(
                f"batch_size {self.batch_size} times n_iter {self.n_iter} are {self.count} "
                f"pictures, and a call makes {PICTURES} at most"
            )
        return self

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self.batch_size * self.n_iter

    @property
    def sampler(self) -> str:
        """The name of a sampler; empty for none."""
        return self.sampler_name or self.sampler_index or ""


class Img2Img(Txt2Img):
    """A call of `img2img`."""

    init_images: Annotated[list[_Encoded], Field(min_length=1, max_length=PICTURES)]
    mask: _Encoded | None = None
    inpainting_mask_invert: bool = False
    denoising_strength: Annotated[float, Field(gt=0, le=1)] = 0.75
    resize_mode: Annotated[int, Field(ge=0, le=3)] = 0
    include_init_images: bool = False


class Options(Sent):
    """Settings: of those only the model has a meaning here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    sd_model_checkpoint: str | None = None


class PngInfo(Sent):
    """A picture whose parameters are asked for."""

    image: _Encoded


def echoed(request: Txt2Img) -> Mapping[str, Any]:
    """The parameters as the answer repeats them: none that are unknown, which may be secrets."""
    found = request.model_dump(include=set(type(request).model_fields))
    if isinstance(request, Img2Img) and not request.include_init_images:
        found |= {"init_images": None, "mask": None}
    return found
