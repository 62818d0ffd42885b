"""Networks of diffusers from folders, all of their weights and no others."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from asymflow.core.errors import FileFormatError

FAILURES = (
    OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError,
)  # fmt: skip
"""Of reading files with diffusers and transformers."""


def complete(
    kind: type[Any], folder: Path, options: Mapping[str, Any], *, exact: bool = True
) -> Any:
    """A network of diffusers or transformers from a folder, with all of its weights.

    The libraries fill what is missing with random numbers, and say so in a warning.

    Args:
        kind: its class.
        folder: holds config.json and safetensors.
        options: of `from_pretrained`.
        exact: whether further tensors in the files are an error, too.

    Raises:
        FileFormatError: tensors are missing, unexpected or of another shape; says which.
    """
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, found = kind.from_pretrained(folder, **told, **options)
    named = (
        ("missing", found["missing_keys"]),
        ("unexpected", found["unexpected_keys"] if exact else ()),
        ("of another shape", [each[0] for each in found["mismatched_keys"]]),
    )
    problems = [f"{what}: {_some(sorted(names))}" for what, names in named if names]
    if problems:
        raise FileFormatError(
            f"The weights in {folder} are not those of the {kind.__name__} of its config.json. "
            f"Tensors {'; '.join(problems)}. Fetch or save the model again."
        )
    return model


@contextmanager
def quiet() -> Generator[None]:
    """Without the progress bars and advice of the libraries: what matters is checked here."""
    kept: list[tuple[Any, int, bool]] = []
    for name in ("diffusers.utils.logging", "transformers.utils.logging"):
        with suppress(ImportError):
            library: Any = import_module(name)
            shown = getattr(library, "is_progress_bar_enabled", lambda: True)()
            kept.append((library, library.get_verbosity(), shown))
            library.set_verbosity_error()
            library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, shown in kept:
            library.set_verbosity(verbosity)
            if shown:
                library.enable_progress_bar()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(list(names)[:4]) + more
