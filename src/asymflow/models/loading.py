"""`asymflow.load`: any model by one reference.

    embedded            the model that comes with asymflow
    a file              recognised by its contents: asymflow's own, JiT, EDM, guided-diffusion
    a folder            a pipeline of diffusers, a UNet2DModel, MiniT2I, or one file of weights;
                        FLUX.2 klein with adapter=FILE, which makes it AsymFLUX.2
    owner/name          the same on a hub
    a name              a model that an installed package offers

Nothing is unpickled unsafely, and code that comes with weights does not run unless asked for. A
reference that leads to no model is refused with the reason, and so are weights that are not all of
a network: none are filled in.

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast, overload

import torch

from asymflow.core import devices
from asymflow.core.adapter import Adapter
from asymflow.core.batcher import is_out_of_memory
from asymflow.core.checks import as_path
from asymflow.core.errors import AsymflowError, FileFormatError, InputError, MissingExtra
from asymflow.models import edm, files, jit, minit2i
from asymflow.models.about import NAME, About, about, told
from asymflow.models.asymflux import adapter as asymflux
from asymflow.models.diffusers import networks, served
from asymflow.models.diffusers.families import FAMILIES
from asymflow.models.edm import adm_checkpoint, checkpoint
from asymflow.models.embedded import adapter as embedded

GROUP = "asymflow.adapters"
EMBEDDED = "embedded"
INDEX = "model_index.json"
WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pkl")
"""Suffixes of files that may hold weights."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.pth", "*.pt")
"""Files of a repository that may be needed."""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_KLEIN = "Flux2KleinPipeline"
"""The latent pipeline that AsymFLUX.2 converts."""


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
            does not take an option; or the device is not there, or has too little memory.
        MissingExtra: its family needs a package that is not installed.
    """
    _check_place(options)
    try:
        return _loaded(model, options)
    except (AsymflowError, RuntimeError, MemoryError) as error:
        cause = error.__cause__ if isinstance(error, AsymflowError) else error
        if cause is None or not is_out_of_memory(cause):
            raise
        raise InputError(
            f"The model {model or EMBEDDED} does not fit into the memory of "
            f"{options.get('device', 'cpu')}. Load it in half precision (dtype bfloat16), or on a "
            "device with more memory."
        ) from error


def _check_place(options: Mapping[str, Any]) -> None:
    """Raise `InputError` for a device that is not there, or a dtype that no network runs in."""
    if "device" in options:
        devices.choose(str(options["device"]))
    if (dtype := options.get("dtype", _DTYPES[0])) not in _DTYPES:
        raise InputError(
            f"dtype={dtype!r} is not supported. Choose one of {', '.join(map(str, _DTYPES))}."
        )


def _loaded(model: Path | str | None, options: Mapping[str, Any]) -> Adapter:
    if model is None or model == EMBEDDED:
        return embedded.load(**options)
    path = as_path("model", model).expanduser()
    if path.is_dir():
        return _folder(path, options)
    if path.is_file():
        return _file(path, about(path), options)
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
    options = {**said.options, **options}
    if (path / INDEX).is_file():
        return told(_pipeline(path, _json(path / INDEX), said, options), said)
    if _is_network(path):
        return told(_network(path, said, options), said)
    weights = sorted(each for each in path.iterdir() if each.suffix in WEIGHTS)
    published = sorted(path.glob("transformer/*.safetensors"))
    for family in _FAMILIES if published else ():
        if family.folder is not None and family.recognises(files.shapes(published[0])):
            return told(_called(family.folder, path, _with_null(family, path, said, options)), said)
    _check_code(path)
    if len(weights) == 1 and not published:
        return _file(weights[0], about(weights[0]) if said == About() else said, options)
    raise FileFormatError(_no_model(path, weights))


def _no_model(path: Path, weights: Sequence[Path]) -> str:
    """Why a folder is no model."""
    if not any(path.iterdir()):
        return f"The folder {path} is empty. Give one that holds a model."
    if len(weights) > 1:
        names = ", ".join(each.name for each in weights[:5])
        return f"The folder {path} holds several files of weights: {names}. Name the one to load."
    inner = [
        each.name
        for each in sorted(path.iterdir())
        if (each / INDEX).is_file() or any(each.glob("transformer/*.safetensors"))
    ]
    advice = (
        f"Give one of its folders: {', '.join(inner[:5])}."
        if inner
        else "Give the folder that a pipeline's save_pretrained wrote, or a file."
    )
    return (
        f"The folder {path} holds no model: neither {INDEX}, which diffusers writes, nor a "
        f"config.json beside weights, nor a file of weights of a known kind. {advice}"
    )


def _check_code(path: Path) -> None:
    """Raise `InputError` for a folder whose model is code that comes along."""
    config = path / "config.json"
    if config.is_file() and (named := _json(config).get("auto_map")):
        raise InputError(
            f"{path} brings its own code ({json.dumps(named):.80}), and code of others is not run. "
            "Read it, load it in Python, and write an adapter for it (asymflow.core.adapter)."
        )


def _file(path: Path, said: About, options: Mapping[str, Any]) -> Adapter:
    """The model of a file."""
    options = {**said.options, **options}
    if path.suffix == ".safetensors":
        shapes = files.shapes(path)
        if str(files.metadata(path).get("format")).startswith("asymflow-"):
            return _called(embedded.load, path, options)
    else:
        shapes = files.nested(files.tensors(path))
    for family in _FAMILIES:
        if family.recognises(shapes):
            return told(_called(family.load, path, _with_null(family, path, said, options)), said)
    raise FileFormatError(
        f"{path} holds {len(shapes)} tensors of no known kind, such as "
        f"{', '.join(list(shapes)[:3]) or 'none'}. Known are {_known()}. Write an adapter for it "
        "(asymflow.core.adapter), or give the folder of its pipeline."
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """Models of files that have names of tensors of their own.

    Attributes:
        recognises: whether tensors of such names and shapes are one.
        load: of a file.
        folder: of a folder in the layout of publication, if there is one.
        null: whether its loader is told which class stands for none.
    """

    title: str
    recognises: Callable[[Mapping[str, tuple[int, ...]]], bool]
    load: Callable[..., Adapter]
    folder: Callable[..., Adapter] | None = None
    null: bool = False


_FAMILIES = (
    _Family("JiT and AsymFlow-JiT", jit.recognises, jit.load),
    _Family("MiniT2I", minit2i.recognises, minit2i.load, minit2i.load),
    _Family("EDM", checkpoint.recognises, edm.load),
    _Family("guided-diffusion", adm_checkpoint.recognises, edm.load_guided_diffusion, null=True),
)
"""No two of them recognise the same tensors."""


def _known() -> str:
    return ", ".join(["asymflow's own", *(family.title for family in _FAMILIES)])


def _with_null(
    family: _Family, path: Path, said: About, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The options, with the class that stands for none where it is said."""
    if said.null is None:
        return options
    if not family.null:
        raise FileFormatError(
            f"The file {NAME} beside {path} names a null class, and models of the kind "
            f"{family.title} know theirs. Leave it out."
        )
    return {"null": said.null, **options}


def _is_network(path: Path) -> bool:
    """Whether a folder holds a network of diffusers and its scheduler, without a pipeline."""
    parts = ((path / "unet" / "config.json").is_file(), (path / "scheduler").is_dir())
    beside = (path / "config.json").is_file() and (path / "scheduler_config.json").is_file()
    return all(parts) or beside


def _network(path: Path, said: About, options: Mapping[str, Any]) -> Adapter:
    null = {} if said.null is None else {"null": said.null}
    return _called(networks.load, path, {**null, **options})


def _pipeline(
    path: Path, index: Mapping[str, Any], said: About, options: Mapping[str, Any]
) -> Adapter:
    """The pipeline of a folder; of one with classes, its network."""
    if "adapter" in options and index.get("_class_name") == _KLEIN:
        return _called(asymflux.load, path, options)
    kind = served.check_index(index, str(path), trust=bool(options.get("trust_remote_code")))
    if _of_classes(path):
        return _network(path, said, options)
    return _called(served.load, path, {**options, "kind": kind})


def _of_classes(path: Path) -> bool:
    """Whether a folder holds a network of classes, which no unconditional pipeline tells it."""
    config = path / "unet" / "config.json"
    if not config.is_file():
        return False
    found = _json(config)
    return found.get("_class_name") == "UNet2DModel" and bool(found.get("num_class_embeds"))


def _hub(name: str, options: Mapping[str, Any]) -> Adapter:
    """The model of a repository: its pipeline, or its files, which are fetched first."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "diffusers") from error
    own = {key: value for key, value in options.items() if key != "revision"}
    revision: str | None = options.get("revision")
    try:
        index = _json(Path(hub.hf_hub_download(name, INDEX, revision=revision)))
    except hub.errors.EntryNotFoundError:  # or it is not in the cache, and nobody can be asked
        index = None
    except (OSError, ValueError) as error:  # all of its errors are one of these
        raise InputError(_unreachable(name, error)) from error
    try:
        if index is None or (index.get("_class_name") == _KLEIN and "adapter" in options):
            folder = hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(_PATTERNS),
                ignore_patterns=["vae/*"],
            )
        else:
            trust = bool(options.get("trust_remote_code"))
            kind = served.check_index(index, name, trust=trust)
            folder = served.fetched(
                name, kind, variant=options.get("variant"), trust=trust, revision=revision
            )
            with suppress(hub.errors.EntryNotFoundError):
                hub.hf_hub_download(name, NAME, revision=revision)
    except AsymflowError:
        raise
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as error:
        raise InputError(_unreachable(name, error)) from error
    if index is None:
        own.pop("variant", None)
    return _folder(Path(folder), own)


def _unreachable(name: str, error: Exception) -> str:
    lines = str(error).splitlines()
    reason = lines[0] if lines else type(error).__name__
    return (
        f"{name!r} is no folder here, and on the hub it cannot be reached: {reason.rstrip('.')}. "
        "Check the name and the connection, or give the path of a folder."
    )


def _package(name: str, options: Mapping[str, Any]) -> Adapter:
    """The model that an installed package offers."""
    found = _offer(name)
    where = f"Adapter {name!r} of {found.value}"
    try:
        function: Callable[..., object] = found.load()
        made = function(**_taken(function, options))
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
    device = torch.device(options.get("device", made.template.device))
    if device.type != made.template.device.type:
        raise InputError(
            f"{where} runs on {made.template.device.type} only: it does not take device="
            f"{str(device)!r}. Ask for {made.template.device.type}."
        )
    return made


def _taken(function: Callable[..., object], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, without device and dtype where a function has no such parameters."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of a builtin
        return dict(options)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(options)
    left = {"device", "dtype"} - {each.name for each in parameters}
    return {name: value for name, value in options.items() if name not in left}


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
