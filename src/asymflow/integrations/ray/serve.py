"""The HTTP API as an application of Ray Serve, with as many replicas as calls need.

    serve run asymflow.integrations.ray.serve:app models='["REF"]'

or `import_path: asymflow.integrations.ray.serve:app` in a config file, whose `args` are `Options`
and whose deployment is called "Api". It is the application of `asymflow serve`, without what needs
one disk for all replicas: the studio, its gallery, and results by URL.

Nodes that are started with

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=asymflow.integrations.ray.proxy:middlewares

say when to try again where a replica is lost with a call.
"""

# Serve reads the annotation of `app`, which therefore is no text here.
import asyncio
import importlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from asymflow.core.errors import InputError
from asymflow.integrations.ray.actors import library
from asymflow.server.app import create_app
from asymflow.server.settings import Settings

TOKEN = "ASYMFLOW_TOKEN"
"""Environment variable with the token of all replicas."""
_POLL = 0.2


class Options(BaseModel):
    """What an application is asked to be.

    Attributes:
        models: as `asymflow serve --model` takes them, on every node; the embedded one if none.
        dtype: None for the fastest of the device.
        device: None for a GPU if the replica has one.
        queue: pictures that wait in a replica; more are refused with 429.
        hosts: names that the application is called by, beside those of this machine.
        open: serve without a token, for a proxy that only this machine, or people who are
            trusted, can reach.
    """

    model_config = ConfigDict(extra="forbid")

    models: tuple[str, ...] = ()
    dtype: str | None = None
    device: str | None = None
    queue: int = 64
    hosts: tuple[str, ...] = ()
    open: bool = False


class Api:
    """A replica: a server of its own, which shares nothing with the others."""

    def __init__(self, options: Options) -> None:
        folder = tempfile.mkdtemp(prefix="asymflow-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        token = os.environ.get(TOKEN)
        self._app = create_app(
            Settings(
                data=Path(folder),
                host="0.0.0.0" if token else "127.0.0.1",
                token=token,
                hosts=options.hosts,
                models=options.models,
                dtype=options.dtype,
                device=options.device,
                queue=options.queue,
                queue_of_one=options.queue,
                replicated=True,
            )
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    async def check_health(self) -> None:
        """Called by Serve: returns once the model is warm, and raises where it cannot draw."""
        manager = self._app.state.studio.manager
        while not manager.ready and manager.first.failure is None:
            await asyncio.sleep(_POLL)
        if manager.first.failure is not None:
            raise RuntimeError(manager.first.failure)
        if not manager.alive:
            raise RuntimeError("The process of the network is being replaced.")


def deployment() -> Any:
    """What an application is made of; `.options` changes its replicas, as a config file does.

    Raises:
        MissingExtra: Ray is not installed.
    """
    library()
    serve: Any = importlib.import_module("ray.serve")
    variables = {TOKEN: os.environ[TOKEN]} if TOKEN in os.environ else {}
    return serve.deployment(
        serve.ingress()(Api),
        name="Api",
        autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 4},
        max_ongoing_requests=64,
        max_queued_requests=256,
        backpressure_config={"status_code": 429, "retry_after_s": 2},
        ray_actor_options={"runtime_env": {"env_vars": variables}},
    )


def app(options: Options) -> Any:
    """The application, for `serve run` and config files.

    Raises:
        MissingExtra: Ray is not installed.
        InputError: everybody could use it.
    """
    if not options.open and TOKEN not in os.environ:
        raise InputError(
            f"Everybody who reaches the proxy could use this application. Set {TOKEN}, or give "
            "open=true."
        )
    return deployment().bind(options)
