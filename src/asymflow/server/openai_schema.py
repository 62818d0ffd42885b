"""Request schemas of the OpenAI-compatible endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, model_validator

from asymflow.io.images import Format
from asymflow.server.schemas import Id, Quality, Sent

PLANS: Mapping[str, str] = {
    "auto": "balanced",
    "low": "draft",
    "medium": "balanced",
    "high": "best",
    "xhigh": "best",
    "max": "best",
    "standard": "balanced",
    "hd": "best",
}
QUALITIES: Mapping[str, str] = {
    "draft": "low",
    "fast": "low",
    "balanced": "medium",
    "best": "high",
}
WITHOUT_EFFECT = frozenset(
    {"moderation", "user", "safety_identifier", "input_fidelity", "complexity", "markup"}
)
_PROMPT = 32_000
"""Characters that OpenAI accepts. Clients let language models write prompts, so longer ones than
ours are truncated, not refused."""
MOOD = ("vivid", "natural")
"""Values of `style` for DALL-E, which are ignored."""


class ImageRequest(Sent):
    """Parameters of both calls. Unknown fields are ignored, and listed in a response header."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _as_given(cls, data: Any) -> Any:
        """Remove null, empty strings and a seed of -1, which clients send for defaults."""
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        return {name: value for name, value in given.items() if not _left(name, value)}

    prompt: Annotated[str, Field(min_length=1, max_length=_PROMPT)]
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: str = "auto"
    quality: str = "auto"
    background: Literal["transparent", "opaque", "auto"] = "auto"
    output_format: Format = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] = 100
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    style: str | None = None
    negative_prompt: Annotated[str, Field(max_length=_PROMPT)] = ""
    plan: Quality | None = None
    guidance_scale: Annotated[float, Field(gt=0, le=100)] | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    fit: Literal["crop", "pad"] = "crop"
    reference: Id | None = None
    model: str | None = None

    def by_url(self, usual: bool) -> bool:
        """Whether pictures are returned as URLs: where that is `usual`, for the DALL-E models."""
        if self.response_format is None:
            return usual and (self.model or "").startswith("dall-e-")
        return self.response_format == "url"


_OPTIONAL = frozenset(ImageRequest.model_fields) - {"prompt"}


def _left(name: str, value: object) -> bool:
    """Whether a field has a value that means the default."""
    empty = name in _OPTIONAL and value == ""
    return value is None or empty or (name == "seed" and value in (-1, "-1"))
