"""What the operator can measure.  Names, counts and sizes only: what the coordinator sees anyway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One process's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "accord_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "accord_request_seconds", "Time to answer, WebSockets excluded", ["route"], registry=self.registry
        )
        self.entries = Counter("accord_log_entries", "Log entries accepted", ["event"], registry=self.registry)
        self.log_size = Gauge("accord_log_size", "Entries in the log", registry=self.registry)
        self.jobs_ended = Counter("accord_jobs_ended", "Jobs that ended, by state", ["state"], registry=self.registry)
        self.relay_bytes = Counter(
            "accord_relay_bytes", "Bytes relayed", ["sender", "receiver"], registry=self.registry
        )
        self.relay_frames = Counter(
            "accord_relay_frames", "Frames relayed", ["sender", "receiver"], registry=self.registry
        )
        self.sockets = Gauge("accord_sockets", "Open WebSockets", ["route"], registry=self.registry)

        self.quotas = Counter(
            "accord_quota",
            "Requests refused and relayed frames delayed by a quota",
            ["silo", "quota"],
            registry=self.registry,
        )

    def crossed(self, silo: str, quota: str) -> None:
        """Count what a quota refused or delayed."""
        self.quotas.labels(silo, quota).inc()

    def forwarded(self, sender: str, receiver: str, size_bytes: int) -> None:
        """Count a relayed frame."""
        self.relay_bytes.labels(sender, receiver).inc(size_bytes)
        self.relay_frames.labels(sender, receiver).inc()

    def text(self) -> bytes:
        """The page at /metrics."""
        return generate_latest(self.registry)
