"""A server in a process of its own, with the model that costs nothing.

    python -m tests.server.served '{"data": "FOLDER", ...}' SECONDS

takes fields of the settings, and the seconds that a step of the model takes.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from asymflow.core.adapter import Context
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.server import app, logs
from asymflow.server.settings import Settings

from .conftest import Slow


class Slower(Slow):
    """Is slow only after the server has warmed up."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._later = seconds

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        if requests[0].inputs["prompt"] != self.card.calibration[0]["prompt"]:
            self.seconds = self._later
        return super().encode(requests)


def main(given: str, seconds: str) -> None:
    logs.set_up(logging.INFO)
    fields: dict[str, Any] = json.loads(given)
    fields["data"] = Path(fields["data"])
    settings = Settings(**fields, port=0)
    adapter = cast("EmbeddedAdapter", Slower(float(seconds)))

    def started(address: str) -> None:
        print(address, flush=True)

    # The model has no words to count.
    with patch("asymflow.server.openai.usage", return_value={"total_tokens": 1}):
        app.run(
            settings,
            started=started,
            load=lambda: pipeline.of(adapter, dtype="float32", device="cpu"),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
