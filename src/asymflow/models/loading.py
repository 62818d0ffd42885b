"""`asymflow.load`: any model by one reference.

    embedded            the model that comes with asymflow
    a file              recognised by its contents, of the embedded kind, JiT, EDM, ...
    a folder            a pipeline of diffusers, or a checkpoint as it was published
    owner/name          the same on a hub
    a name              a model that an installed package offers

Nothing is unpickled unsafely, and code that comes with weights does not run unless asked for.

A package offers a model as an entry point of the group "asymflow.adapters", a function that returns
an `asymflow.core.adapter.Adapter`:

    [project.entry-points."asymflow.adapters"]
    mine = "my_package:load"

and `asymflow.load("mine", device="cuda")` calls it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast, overload

import torch

from asymflow.core.adapter import Adapter
from asymflow.core.checks import as_path
from asymflow.core.errors import AsymflowError, FileFormatError, InputError, MissingExtra
from asymflow.models import files, jit
from asymflow.models.about import About, about, told
from asymflow.models.diffusers import networks, served
from asymflow.models.diffusers.families import FAMILIES
from asymflow.models.embedded import adapter as embedded

GROUP = "asymflow.adapters"
EMBEDDED = "embedded"
INDEX = "model_index.json"
WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pkl")
"""Suffixes of files that may hold weights."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.pth")
"""Files of a repository that may be needed."""


@overload
def load(
    model: None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> embedded.EmbeddedAdapter: ...


@overload
def load(model: Path | str, **options: Any) -> Adapter: ...


def load(model: Path | str | None = None, **options: Any) -> Adapter:
    """Load a model for inference.

    Args:
        model: what to load, see above; by default the model that comes with asymflow. Text with a
            suffix, or that begins with ".", "/" or "~", is a path.
        options: `device` and `dtype` of any model; `revision`, `variant` and `trust_remote_code` of
            one on a hub; and those of its family or package.

    Returns:
        The model with its card (`asymflow.core.card`), but for one of a package that has none.

    Raises:
        FileFormatError: a file is missing, damaged or of no known kind.
        InputError: nothing is called that; or the model works on latents, needs code of others, or
            does not take an option.
        MissingExtra: its family needs a package that is not installed.
    """
    if model is None or model == EMBEDDED:
        return embedded.load(**options)
    path = as_path("model", model).expanduser()
    if path.is_dir():
        return _folder(path, options)
    if path.is_file():
        return _file(path, options)
    named = isinstance(model, str) and _REPOSITORY.fullmatch(model)
    if not named and (isinstance(model, Path) or path.suffix or model.startswith((".", "/", "~"))):
        raise FileFormatError(
            f"There is no file or folder {model}. Check the path; `asymflow models` lists what is "
            "at hand."
        )
    if named:
        return _hub(str(model), options)
    return _package(str(model), options)


def offered() -> tuple[EntryPoint, ...]:
    """What installed packages offer."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda each: each.name))


def cached() -> tuple[str, ...]:
    """Repositories of the hub that are in its cache here and hold a known pipeline."""
    try:
        import huggingface_hub as hub
    except ImportError:
        return ()
    try:
        repositories = hub.scan_cache_dir().repos
    except (hub.errors.CacheNotFound, OSError):
        return ()
    return tuple(sorted(each.repo_id for each in repositories if _holds_pipeline(each)))


def _holds_pipeline(repository: Any) -> bool:
    """Whether a repository in the cache of the hub holds a pipeline of a known kind."""
    if repository.repo_type != "model":
        return False
    for revision in repository.revisions:
        index = revision.snapshot_path / INDEX
        if index.is_file() and _json(index).get("_class_name") in FAMILIES:
            return True
    return False


def _folder(path: Path, options: Mapping[str, Any]) -> Adapter:
    """The model of a folder."""
    said = about(path)
    if (path / INDEX).is_file():
        return told(_pipeline(path, _json(path / INDEX), said, options), said)
    if _is_network(path):
        return told(_network(path, said, options), said)
    weights = sorted(each for each in path.iterdir() if each.suffix in WEIGHTS)
    published = sorted(path.glob("transformer/*.safetensors"))
    if len(weights) == 1 and not published:
        return told(_file(weights[0], options), said)
    for family in _FAMILIES:
        if (
            family.folder is not None
            and published
            and family.recognises(files.shapes(published[0]))
        ):
            return told(_called(family.folder, path, options), said)
    if not any(path.iterdir()):
        raise FileFormatError(f"The folder {path} is empty. Give one that holds a model.")
    if len(weights) > 1:
        names = ", ".join(each.name for each in weights[:5])
        raise FileFormatError(
            f"The folder {path} holds several files of weights: {names}. Name the one to load."
        )
    raise FileFormatError(
        f"The folder {path} holds no model: neither {INDEX}, which diffusers writes, nor a "
        "config.json beside weights, nor a file of weights. Give the folder that a pipeline's "
        "save_pretrained wrote, or a file."
    )


def _file(path: Path, options: Mapping[str, Any]) -> Adapter:
    """The model of a file."""
    said = about(path)
    if path.suffix == ".safetensors":
        shapes, metadata = files.shapes(path), files.metadata(path)
        if str(metadata.get("format")).startswith("asymflow-"):
            return embedded.load(path, **options)
        for family in _FAMILIES:
            if family.recognises(shapes):
                return told(_called(family.load, path, options), said)
        raise FileFormatError(
            f"{path} holds {len(shapes)} tensors of no known kind, such as "
            f"{', '.join(list(shapes)[:3]) or 'none'}. Known are {_known()}. Write an adapter for "
            "it (asymflow.core.adapter), or give the folder of its pipeline."
        )
    with path.open("rb") as file:
        begin = file.read(4)
    if begin[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        raise FileFormatError(
            f"{path} is no file of weights: it begins with {begin!r}. Give a safetensors file, a "
            "checkpoint of torch.save, or a folder of diffusers."
        )
    shapes = files.nested(files.tensors(path))
    for family in _FAMILIES:
        if family.recognises(shapes):
            return told(_called(family.load, path, options), said)
    raise FileFormatError(
        f"{path} holds {len(shapes)} tensors of no known kind, such as "
        f"{', '.join(list(shapes)[:3]) or 'none'}. Known are {_known()}."
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """Models of files that have names of tensors of their own.

    Attributes:
        recognises: whether tensors of such names and shapes are one.
        load: of a file.
        folder: of a folder in the layout of publication, if there is one.
    """

    title: str
    recognises: Callable[[Mapping[str, tuple[int, ...]]], bool]
    load: Callable[..., Adapter]
    folder: Callable[..., Adapter] | None = None


_FAMILIES = (_Family("JiT and AsymFlow-JiT", jit.recognises, jit.load),)


def _known() -> str:
    return ", ".join(["asymflow's own", *(family.title for family in _FAMILIES)])


def _is_network(path: Path) -> bool:
    """Whether a folder holds a network of diffusers and its scheduler, without a pipeline."""
    parts = ((path / "unet" / "config.json").is_file(), (path / "scheduler").is_dir())
    beside = (path / "config.json").is_file() and (path / "scheduler_config.json").is_file()
    return all(parts) or beside


def _network(path: Path, said: About, options: Mapping[str, Any]) -> Adapter:
    null = {} if said.null is None else {"null": said.null}
    return _called(networks.load, path, {**null, **options})


def _pipeline(
    ref: Path | str, index: Mapping[str, Any], said: About, options: Mapping[str, Any]
) -> Adapter:
    """The pipeline of a folder or a repository; of one with classes, its network."""
    kind = served.check_index(index, str(ref), trust=bool(options.get("trust_remote_code")))
    if isinstance(ref, Path) and _of_classes(ref):
        return _network(ref, said, options)
    return _called(served.load, ref, {**options, "kind": kind})


def _of_classes(path: Path) -> bool:
    """Whether a folder holds a network of classes, which no unconditional pipeline tells it."""
    config = path / "unet" / "config.json"
    if not config.is_file():
        return False
    found = _json(config)
    return found.get("_class_name") == "UNet2DModel" and bool(found.get("num_class_embeds"))


def _hub(name: str, options: Mapping[str, Any]) -> Adapter:
    """The model of a repository: its pipeline, or its files."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "diffusers") from error
    revision = options.get("revision")
    try:
        index = hub.hf_hub_download(name, INDEX, revision=revision)
    except hub.errors.EntryNotFoundError:
        index = None
    except (OSError, ValueError) as error:  # all of its errors are one of these
        raise InputError(
            f"{name!r} is no folder here, and on the hub it cannot be reached: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__} Check the name "
            "and the connection, or give the path of a folder."
        ) from error
    if index is not None:
        return _pipeline(name, _json(Path(index)), About(), options)
    try:
        folder = hub.snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS))
    except (OSError, ValueError) as error:
        raise InputError(f"The files of {name!r} cannot be fetched: {error}.") from error
    own = {key: value for key, value in options.items() if key not in ("revision", "variant")}
    return _folder(Path(folder), own)


def _package(name: str, options: Mapping[str, Any]) -> Adapter:
    """The model that an installed package offers."""
    found = _offer(name)
    where = f"Adapter {name!r} of {found.value}"
    try:
        made: object = found.load()(**options)
    except AsymflowError:
        raise
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"{where} cannot be loaded: {error}. Install what it needs, or check its options."
        ) from error
    if not isinstance(made, Adapter):
        raise InputError(
            f"{where} returned a {type(made).__name__}, which is no asymflow.core.adapter.Adapter. "
            "Report it to its authors."
        )
    return made


def _offer(name: str) -> EntryPoint:
    every = offered()
    found = [each for each in every if each.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(each.name for each in every)) or "none"
        raise InputError(
            f"There is no model {name!r}: it is no file or folder here, and no installed package "
            f"offers one of that name (offered: {names}). Give 'embedded', the path of a file or "
            "a folder, a repository 'owner/name', or install a package that offers it."
        )
    if len({each.value for each in found}) > 1:
        raise InputError(
            f"Several packages offer a model called {name!r}: "
            f"{', '.join(each.value for each in found)}. Uninstall all but one."
        )
    return found[0]


def _called(
    function: Callable[..., Adapter], ref: Path | str, options: Mapping[str, Any]
) -> Adapter:
    """Call a loader with options, which not every family takes.

    Raises:
        InputError: it does not take one of them.
    """
    parameters = inspect.signature(function).parameters
    unknown = [name for name in options if name not in parameters]
    if unknown:
        known = ", ".join(list(parameters)[1:])
        raise InputError(f"{unknown[0]} is no option of the model {ref}. Its options are {known}.")
    return function(ref, **options)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(
            f"Cannot read {path}: {error}. Fetch or save the model again."
        ) from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} is no JSON object. Fetch or save the model again.")
    return cast("dict[str, Any]", found)
