"""Metrics for Prometheus. No label contains prompts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FORWARDS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 128)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        into = self._registry
        self.queue = Gauge(
            "asymflow_queue_pictures",
            "Pictures that wait.",
            registry=into,
        )
        self.ready = Gauge(
            "asymflow_ready",
            "1 when the first model is loaded and warm, and all networks respond.",
            registry=into,
        )
        self.loaded = Gauge(
            "asymflow_models_loaded",
            "Models that are loaded.",
            registry=into,
        )
        self.wait = Histogram(
            "asymflow_wait_seconds",
            "From a job's arrival to its start.",
            buckets=_WAITS,
            registry=into,
        )
        self.seconds = Histogram(
            "asymflow_picture_seconds",
            "Computing per picture.",
            ["quality", "model"],
            buckets=_SECONDS,
            registry=into,
        )
        self.forwards = Histogram(
            "asymflow_picture_forwards",
            "Network passes per picture.",
            ["quality", "model"],
            buckets=_FORWARDS,
            registry=into,
        )
        self.pictures = Counter(
            "asymflow_pictures",
            "Finished pictures.",
            ["kind", "quality", "model"],
            registry=into,
        )
        self.jobs = Counter(
            "asymflow_jobs",
            "Jobs that are over.",
            ["kind", "state"],
            registry=into,
        )
        self.failures = Counter(
            "asymflow_failures",
            "Failed jobs by their cause.",
            ["code"],
            registry=into,
        )
        self.memory = Counter(
            "asymflow_out_of_memory",
            "Times that memory ran out.",
            registry=into,
        )
        self.restarts = Gauge(
            "asymflow_network_restarts",
            "Times that the process of the network was lost or could not be started.",
            registry=into,
        )
        self.calls = Counter(
            "asymflow_http_requests",
            "Calls.",
            ["method", "status"],
            registry=into,
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
