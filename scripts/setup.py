"""Make .venv ready, on Linux, macOS and Windows, with what Python has itself.

    python scripts/setup.py         to run asymflow
    python scripts/setup.py dev     to work on it

Instant when nothing has changed since the last time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def require_python() -> None:
    """Leave with a message where the Python that runs this is too old."""
    if sys.version_info < (3, 11):  # noqa: UP036 (whoever runs this may have any)
        sys.exit(
            f"asymflow needs Python 3.11 or newer, and this is {sys.version.split()[0]}. Install "
            "one from https://www.python.org/downloads/ and try again."
        )


def say(message: str) -> None:
    """Print a line beside the output, which may be read by a program."""
    print(message, file=sys.stderr, flush=True)


def program(name: str, platform: str = sys.platform) -> Path:
    """The path of a program in `.venv`, by its name without an ending."""
    windows = platform == "win32"
    return VENV / ("Scripts" if windows else "bin") / (name + ".exe" if windows else name)


def wanted() -> str:
    """A checksum of what decides what is installed."""
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    return format(zlib.crc32(b"".join(file.read_bytes() for file in files)), "08x")


def is_ready(extra: str) -> bool:
    """Whether an extra, or `dev`, which contains all others, is installed as it should be."""
    stamps = (VENV / stamp for stamp in (_stamp(extra), _stamp("dev")))
    return any(stamp.is_file() and stamp.read_text() == wanted() for stamp in stamps)


def ensure(extra: str = "") -> None:
    """Make `.venv` ready with an extra of asymflow; leave by `SystemExit` where it cannot be."""
    if is_ready(extra):
        return
    if not program("python").exists():
        make_venv()
    torch = pinned("torch")
    if installed("torch") != torch.partition("==")[2]:
        install_torch(torch)
    say("Installing asymflow" + (f" and what its {extra} extra needs." if extra else "."))
    pip("--constraint", "constraints.txt", "--editable", f".[{extra}]" if extra else ".")
    if extra == "dev":
        # Tests compare with azula. It asks for torchvision, which nothing used here needs.
        pip("--no-deps", "azula==0.11.1", "einops==0.8.2")
    (VENV / _stamp(extra)).write_text(wanted())


def make_venv() -> None:
    """Create `.venv` with the Python that runs this."""
    say(f"Creating .venv with Python {sys.version.split()[0]}.")
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False).returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            "Python cannot make virtual environments. On Debian and Ubuntu: "
            "apt install python3-venv"
        )


def install_torch(torch: str) -> None:
    """Install PyTorch, on Linux without an NVIDIA GPU its build for the CPU.

    There PyPI's torch brings gigabytes of CUDA libraries that would be of no use. A build for the
    CPU among the indexes that pip is configured for comes first, then PyTorch's own index, and
    where that cannot be reached the configured ones must do.
    """
    if sys.platform == "linux" and not shutil.which("nvidia-smi") and not _cpu_build(torch):
        say(f"Installing PyTorch for the CPU from {CPU_INDEX}. This can take minutes.")
        index = ("--index-url", CPU_INDEX, "--timeout", "10", "--retries", "1")
        if _pip("install", *index, torch).returncode == 0:
            return
        say("That index cannot be used here; installing from pip's configured indexes.")
    else:
        say("Installing PyTorch. This can take minutes.")
    pip("--constraint", "constraints.txt", torch)


def pinned(package: str) -> str:
    """The line of a package in constraints.txt, like "torch==2.13.0"."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{package}=="))


def installed(package: str) -> str | None:
    """The version of a package in `.venv`, without its local part; None where it is absent."""
    code = f"import importlib.metadata as installed; print(installed.version({package!r}))"
    command = [str(program("python")), "-c", code]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return found.stdout.strip().partition("+")[0] if found.returncode == 0 else None


def pip(*arguments: str) -> None:
    """Install with pip; leave with its exit status where it fails, after it has said why."""
    if status := _pip("install", *arguments).returncode:
        sys.exit(status)


def _pip(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    options = ("--disable-pip-version-check", "--no-input")
    quiet = () if capture else ("-qq",)  # which silences `pip index`, too
    command = [str(program("python")), "-m", "pip", *options, *quiet, *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=capture, text=True)


def _cpu_build(torch: str) -> bool:
    listed = _pip("index", "versions", "torch", capture=True).stdout
    return f"{torch.partition('==')[2]}+cpu" in listed


def _stamp(extra: str) -> str:
    return f".ready-{extra}" if extra else ".ready"


if __name__ == "__main__":
    require_python()
    ensure(*sys.argv[1:2])
