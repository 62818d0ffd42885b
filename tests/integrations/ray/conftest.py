"""A cluster of two nodes with one CPU each, on this machine."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bulk.conftest import here as here


@dataclass
class Nodes:
    """A cluster, joined by this process."""

    cluster: Any
    ray: Any

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, include_dashboard=False)

    def lose(self, node: Any) -> None:
        """Kill all processes of a node."""
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(autouse=True)
def no_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray counts nothing: its counting goes on in a thread when a test is over, and writes
    tracebacks, while another test may be reading source. Python before 3.11.8 cannot do both."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture
def nodes(here: Path) -> Iterator[Nodes]:
    ray: Any = pytest.importorskip("ray")
    utils: Any = importlib.import_module("ray.cluster_utils")
    cluster = utils.Cluster()
    found = Nodes(cluster, ray)
    try:
        found.add()
        found.add()
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield found
    finally:
        ray.shutdown()
        cluster.shutdown()
