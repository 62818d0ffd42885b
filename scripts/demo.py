"""Draw a prompt in every style, after all the set-up that is needed: demo.py "a fox"."""

import subprocess
import sys

import setup

if __name__ == "__main__":
    setup.require_python()
    setup.ensure()
    command = [str(setup.program("asymflow")), "sheet", *(sys.argv[1:] or ["a fox"])]
    sys.exit(subprocess.run(command, check=False).returncode)
