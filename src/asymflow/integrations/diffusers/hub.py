"""Plans in repositories of a model hub: one JSON file each, beside a model or alone.

Only that file is written or read: no weights, no code. Access, offline mode and the cache are those
of the package huggingface_hub, which diffusers brings along.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from asymflow.core.checks import instance
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.types import Plan
from asymflow.planning.plan_files import load_plan, plan_to_json

try:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
except ImportError as error:
    raise MissingExtra("huggingface_hub", "diffusers") from error

FOLDER = "asymflow"
"""Beside the model, in repositories as on disk: one file per plan."""
# Which HTTP library it uses is its own affair; all of that library's errors are bases of this one.
_LIBRARY = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
_FAILURES = (*_LIBRARY, OSError, HFValidationError)


def push(
    plan: Plan,
    repo_id: str,
    *,
    name: str = "plan",
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    endpoint: str | None = None,
) -> str:
    """Write a plan into a repository, which is made if there is none yet.

        push(pipe.asymflow_plan, "me/my-model")

    Args:
        repo_id: "owner/name".
        name: of the plan: the file is asymflow/NAME.json.
        private, token, create_pr: as for `push_to_hub` of a pipeline, which writes the plan of an
            accelerated one together with the model.
        endpoint: of another hub than the usual one.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        InputError: the hub refuses, or the name is none.
    """
    instance("plan", plan, Plan, "The order is plan, 'owner/name'.")
    instance("repo_id", repo_id, str, "Give it as 'owner/name'.")
    api = HfApi(endpoint=endpoint, token=token)
    data = json.dumps(plan_to_json(plan), indent=1) + "\n"
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        made = api.upload_file(
            path_or_fileobj=data.encode(),
            path_in_repo=path_of(name),
            repo_id=repo_id,
            commit_message=f"Add the plan {plan.name!r}",
            create_pr=create_pr,
        )
    except _FAILURES as error:
        raise InputError(
            f"The plan {plan.name!r} cannot be written to {repo_id!r}: {_cause(error)}. Give a "
            "repository of yours as 'owner/name', and a token that may write: token=..., or "
            "`hf auth login`."
        ) from error
    return str(made.pr_url or made.commit_url)


def pull(
    repo_id: str,
    *,
    name: str = "plan",
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    cache_dir: Path | str | None = None,
    endpoint: str | None = None,
) -> Plan:
    """Read a plan from a repository, or from the cache where it was read before.

    Args:
        local_files_only: makes no request to the hub; HF_HUB_OFFLINE=1 does so for a whole process.

    Raises:
        InputError: there is none, or it cannot be reached.
        FileFormatError: the file is damaged or no plan.
    """
    instance("repo_id", repo_id, str, "Give it as 'owner/name'.")
    try:
        path = hf_hub_download(
            repo_id,
            path_of(name),
            revision=revision,
            token=token,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
            endpoint=endpoint,
        )
    except _FAILURES as error:
        raise InputError(
            f"No plan {path_of(name)} was found in {repo_id!r}: {_cause(error)}. Check the name "
            "and the connection, pass the path of a plan file, or make one with plan='auto'."
        ) from error
    try:
        return load_plan(Path(path))
    except FileFormatError as error:
        raise FileFormatError(f"{repo_id!r} holds no plan as {path_of(name)}: {error}") from error


def path_of(name: str) -> str:
    """Where a plan is in a repository.

    Raises:
        InputError: the name is a path, or nothing.
    """
    instance("name", name, str, "Choose one like 'plan'.")
    if not name or Path(name).name != name:
        raise InputError(f"{name!r} cannot be the name of a plan. Choose one like 'plan'.")
    return f"{FOLDER}/{name}.json"


def _cause(error: Exception) -> str:
    """The first line that says something, without its full stop."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__).rstrip(".")
