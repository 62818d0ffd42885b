"""A server in a process of its own, with the model that costs nothing.

    python -m tests.studio.served '{"data": "FOLDER", ...}' SECONDS

takes fields of the settings, and the seconds that a step of the model takes.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any, cast

from asymflow.adapters.embedded import EmbeddedAdapter
from asymflow.generation import Model
from asymflow.studio import logs, server
from asymflow.studio.settings import Settings

from .conftest import Slow


def main(given: str, seconds: str) -> None:
    logs.set_up(logging.INFO)
    fields: dict[str, Any] = json.loads(given)
    fields["data"] = Path(fields["data"])
    settings = Settings(**fields, port=0)
    adapter = cast("EmbeddedAdapter", Slow(float(seconds)))

    def started(address: str) -> None:
        print(address, flush=True)

    server.run(settings, started=started, load=lambda: Model(adapter, "float32", "cpu", 0.0))


if __name__ == "__main__":
    main(*sys.argv[1:])
