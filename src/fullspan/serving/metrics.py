"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from fullspan.decoding.batching import Scheduler

# Of the text format that `Metrics.text` is in.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts of requests, and what the scheduler says about itself.

    Attributes
    ----------
    requests : Counter
        By route and status.
    seconds, first_token : Histogram
        Of whole requests, and until an answer's first token.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fullspan_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fullspan_request_seconds",
            "Time of whole requests",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "fullspan_first_token_seconds",
            "Time until a first token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "running_answers": ("Answers that grow", lambda: scheduler.n_running),
            "waiting_answers": ("Answers in the queue", lambda: scheduler.n_waiting),
            "kept_tokens": ("Tokens kept for later prompts", lambda: scheduler.n_kept_tokens),
        }
        for name, (help_, value) in gauges.items():
            Gauge(f"fullspan_{name}", help_, registry=self.registry).set_function(value)
        self.registry.register(_Counts(scheduler))

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Counts(Collector):
    """The scheduler's own counts."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> list[CounterMetricFamily]:
        counts = self._scheduler.counts
        shown = {
            "steps": ("Steps of the engine", counts.steps),
            "prompt_tokens": ("Tokens of prompts that were read", counts.prompt_tokens),
            "reused_prompt_tokens": ("Tokens of prompts that were kept from before", counts.reused_tokens),
            "answer_tokens": ("Tokens generated", counts.answer_tokens),
            "proposed_tokens": ("Tokens that drafts proposed", counts.proposed_tokens),
            "accepted_tokens": ("Tokens of drafts that were accepted", counts.accepted_tokens),
            "cancelled_requests": ("Requests whose client left", counts.cancelled),
            "refused_answers": ("Answers refused as the queue was full", counts.refused),
        }
        return [
            CounterMetricFamily(f"fullspan_{name}", help_, value=value)
            for name, (help_, value) in shown.items()
        ]
