"""Sources of the pictures and their names: pinned packages, styles and licences.

Nothing here reads a file or the network. A style is one consistent set of emoji drawings;
every set is openly licensed without a share-alike clause.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package at one version; `integrity` is npm's `sha512-<base64>` string."""

    name: str
    version: str
    integrity: str


@dataclass(frozen=True, slots=True)
class Style:
    """One set of drawings.

    `names` are those used in captions, the plainest first; `licence` is the SPDX identifier of
    the artwork, `notice` the attribution that its authors require.
    """

    id: str
    names: tuple[str, ...]
    licence: str
    author: str
    upstream: str
    package: Package

    @property
    def notice(self) -> str:
        """One line of attribution, for NOTICE files and model cards."""
        return f"{self.names[0]} emoji by {self.author} ({self.upstream}), {self.licence}"


STYLES: tuple[Style, ...] = (
    Style(
        id="fluent-3d",
        names=("fluent 3d", "3d"),
        licence="MIT",
        author="Microsoft Corporation",
        upstream="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        ),
    ),
    Style(
        id="fluent-flat",
        names=("fluent flat", "flat"),
        licence="MIT",
        author="Microsoft Corporation",
        upstream="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
    ),
    Style(
        id="noto",
        names=("noto",),
        licence="Apache-2.0",
        author="Google",
        upstream="https://github.com/googlefonts/noto-emoji",
        package=Package(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
    ),
    Style(
        id="noto-v1",
        names=("noto blob", "blob"),
        licence="Apache-2.0",
        author="Google",
        upstream="https://github.com/googlefonts/noto-emoji",
        package=Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        ),
    ),
    Style(
        id="twemoji",
        names=("twemoji", "twitter"),
        licence="CC-BY-4.0",
        author="Twitter, Inc. and contributors",
        upstream="https://github.com/jdecked/twemoji",
        package=Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
    ),
    Style(
        id="emojione",
        names=("emojione", "emoji one"),
        licence="CC-BY-4.0",
        author="EmojiOne (version 2) and EmojiTwo contributors",
        upstream="https://github.com/EmojiTwo/emojitwo",
        package=Package(
            "@iconify-json/emojione",
            "1.2.3",
            "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        ),
    ),
    Style(
        id="streamline",
        names=("streamline", "outlined"),
        licence="CC-BY-4.0",
        author="Streamline",
        upstream="https://github.com/webalys-hq/streamline-vectors",
        package=Package(
            "@iconify-json/streamline-emojis",
            "1.2.4",
            "sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
        ),
    ),
    Style(
        id="fxemoji",
        names=("fxemoji", "firefox os"),
        # The package index says Apache-2.0; upstream's LICENSE.md gives that to the code
        # and CC BY 4.0 to "the visual design".
        licence="CC-BY-4.0",
        author="Mozilla Foundation",
        upstream="https://github.com/mozilla/fxemoji",
        package=Package(
            "@iconify-json/fxemoji",
            "1.2.2",
            "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        ),
    ),
)

LIBRARY = ("noto", "fluent-flat", "twemoji")
"""Styles whose drawings are shipped as references, in order of preference: clear, complete, and
distinct."""

NAMES = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
"""CLDR short names, tags and groups (MIT; the CLDR data under Unicode-3.0)."""

KEYWORDS = Package(
    "emojilib",
    "4.0.3",
    "sha512-KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
)
"""More keywords per emoji (MIT)."""


def style_ids() -> tuple[str, ...]:
    """All style ids, in the order of their numbers."""
    return tuple(style.id for style in STYLES)
