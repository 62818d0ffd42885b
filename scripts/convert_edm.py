"""Convert a network of EDM from a pickle to safetensors, which hold no code.

    cd CLONE_OF_EDM                       # git clone https://github.com/NVlabs/edm
    pip install safetensors               # beside what EDM itself needs
    python convert_edm.py edm-cifar10-32x32-cond-vp.pkl edm-cifar10-32x32-cond-vp.safetensors

EDM's pickles contain code that runs when they are read, so asymflow does not read them. This script
does, with EDM's own modules, and needs nothing of asymflow: copy it into the clone. Convert pickles
that you trust only.
"""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file


def convert(pickled: str, path: str) -> None:
    """Write the averaged weights, and the arguments that the network was made with."""
    sys.path.insert(0, "")  # EDM's modules, in the working directory
    with Path(pickled).open("rb") as file:
        net: Any = pickle.load(file)["ema"]
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    described = {"class_name": type(net).__name__, **net.init_kwargs}
    save_file(state, path, {"edm": json.dumps(described)})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(*sys.argv[1:])
