"""A child that imports no torch: it speaks as `server.remote` does, and misbehaves as told.

Its network answers 0.3 times the colour of the context, if that has one, plus 0.3 times the state.
Its argument is a folder in which files say how it fails. At its start: "exit" ends it, "mute" keeps
it from saying that it can answer, "garbage" lets it say what is no message, "closed" lets it close
its output and live on. At every question: "die" ends it, "hang" lets it give no answer.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from asymflow.server.supervisor import end_with_parent, read, write


def main(folder: Path) -> None:
    end_with_parent()
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    if (folder / "exit").exists():
        sys.exit(3)
    if (folder / "mute").exists():
        time.sleep(600)
    if (folder / "garbage").exists():
        told.write(b"\xff" * 64)
        told.flush()
        time.sleep(600)
    if (folder / "closed").exists():
        os.close(told.fileno())
        time.sleep(600)
    write(told, b"")
    contexts: dict[int, dict[str, np.ndarray]] = {}
    while (sent := read(asked)) is not None:
        if (folder / "hang").exists():
            time.sleep(600)
        if not sent:
            write(told, b"")
            continue
        if (folder / "die").exists():
            os._exit(4)
        message = load(sent)
        number = int(message["number"])
        own = {name[1:]: value for name, value in message.items() if name.startswith(".")}
        contexts[number] = own or contexts[number]
        colour = contexts[number].get("colour", np.zeros((1, 4), np.float32))
        x_0 = np.float32(0.3) * colour[:, :, None, None] + np.float32(0.3) * message["x_t"]
        write(told, save({"x_0": x_0}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
