"""Alerts on the promise itself: how fast its error budget is being used up.

Multi-window, multi-burn-rate alerts after Google, The Site Reliability Workbook (2018), chapter 5, "Alerting on SLOs",
section 6 and table 5-8. A burn rate of 1 uses up the budget in exactly the period. An alert fires while a long window
(enough went wrong to matter) and one twelfth of it (it still goes wrong) both burn too fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tools.manifests.labels import labels
from tools.manifests.metrics import DURATION, REQUESTS, selector
from tools.manifests.service import Service
from tools.scaling.manifest import Manifest

PERIOD_H = 30 * 24
LATENCY_OBJECTIVE = Decimal("0.99")
"""The SLO is a p99: 99 of 100 requests may not take longer."""
AVAILABILITY_OBJECTIVE = Decimal("0.999")
"""Share of requests that are answered at all: a common start, about 43 minutes a month."""
FAILED = 'code=~"5..|429"'
"""Errors of the server, and requests that it refused since it was full."""
RATIO = "slo:sli_error:ratio_rate"
SHORT = 12
"""The long window is so many short ones."""


@dataclass(frozen=True)
class BurnRate:
    """One row of the table: an alert when this share of the period's budget went within the long window."""

    severity: str
    long_h: int
    budget: Decimal

    @property
    def factor(self) -> Decimal:
        """How many times faster than allowed that is: `share of the budget * period / window`."""
        return (self.budget * PERIOD_H / self.long_h).normalize()

    @property
    def windows(self) -> tuple[str, str]:
        """The long window and the short one, as PromQL writes them."""
        return _duration(60 * self.long_h), _duration(60 * self.long_h // SHORT)


BURN_RATES = (
    BurnRate("page", 1, Decimal("0.02")),
    BurnRate("page", 6, Decimal("0.05")),
    BurnRate("ticket", 72, Decimal("0.10")),
)


@dataclass(frozen=True)
class Objective:
    """One promise: which share of the requests is to be good, and how to count those that are not."""

    name: str
    share: Decimal
    bad: str
    """PromQL for the share of bad requests; `WINDOW` stands for the range."""
    told: str
    """What happened to a bad request, in words."""

    @property
    def budget(self) -> Decimal:
        """Share of the requests that may be bad."""
        return 1 - self.share


def objectives(service: Service, namespace: str) -> tuple[Objective, ...]:
    """Return the promises of a service: that requests are answered, and, with an SLO, that they are in time."""
    failed = f"sum(rate({REQUESTS}{selector(service, namespace, FAILED)}[WINDOW]))"
    total = f"sum(rate({REQUESTS}{selector(service, namespace)}[WINDOW]))"
    # Without a failure there is no such series, and no series would be no answer.
    answered = Objective(
        "availability", AVAILABILITY_OBJECTIVE, f"({failed} or vector(0))\n/\n{total}", "failed or were refused"
    )
    if service.slo_ms is None:
        return (answered,)
    in_time = f"sum(rate({DURATION}_bucket{selector(service, namespace, bound(service.slo_ms.value))}[WINDOW]))"
    measured = f"sum(rate({DURATION}_count{selector(service, namespace)}[WINDOW]))"
    return (
        answered,
        Objective(
            "latency",
            LATENCY_OBJECTIVE,
            f"1 - (\n  {in_time}\n  /\n  {measured}\n)",
            f"took longer than {service.slo_ms.value:g} ms",
        ),
    )


def bound(slo_ms: float) -> str:
    """Return the matcher of the histogram's bucket that ends at the SLO.

    A whole number of seconds is `1` to some client libraries and `1.0` to others, and to Prometheus from 3.0 on.
    """
    seconds = slo_ms / 1000
    if seconds == int(seconds):
        return f'le=~"{int(seconds)}([.]0)?"'
    return f'le="{seconds!r}"'


def prometheus_rule(service: Service, namespace: str) -> Manifest:
    """Return recording rules for the share of bad requests over each window, and the alerts on them."""
    promises = objectives(service, namespace)
    group = f"{service.name}-{namespace}-slo"
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"{service.name}-slo", "labels": labels(service)},
        "spec": {
            "groups": [
                {"name": f"{group}-ratios", "interval": "30s", "rules": _ratios(service, namespace, promises)},
                {
                    "name": f"{group}-alerts",
                    "interval": "30s",
                    "rules": [
                        *[_burning(service, namespace, p, rate) for p in promises for rate in BURN_RATES],
                        *_unmeasured(service, namespace),
                    ],
                },
            ]
        },
    }


def _ratios(service: Service, namespace: str, promises: tuple[Objective, ...]) -> list[Manifest]:
    windows = dict.fromkeys(w for rate in BURN_RATES for w in reversed(rate.windows))
    return [
        {
            "record": f"{RATIO}{window}",
            "expr": promise.bad.replace("WINDOW", window),
            "labels": {"namespace": namespace, "service": service.name, "slo": promise.name},
        }
        for promise in promises
        for window in windows
    ]


def _burning(service: Service, namespace: str, promise: Objective, rate: BurnRate) -> Manifest:
    matchers = selector(service, namespace, f'slo="{promise.name}"')
    limit = f"({rate.factor:f} * {promise.budget:f})"
    long, short = rate.windows
    return {
        "alert": "ErrorBudgetBurning",
        "expr": f"{RATIO}{long}{matchers} > {limit}\nand\n{RATIO}{short}{matchers} > {limit}",
        "labels": {"severity": rate.severity, "slo": promise.name, "long_window": long},
        "annotations": {
            "summary": f"{service.name} in {namespace} uses up its {promise.name} budget {rate.factor:f} times as fast "
            f"as it would last {PERIOD_H // 24} days.",
            "description": f"{{{{ $value | humanizePercentage }}}} of the requests of the last {long} {promise.told}; "
            f"{_percent(promise.budget)} may over {PERIOD_H // 24} days. At this rate {_percent(rate.budget)} of the "
            f"whole budget goes in {long}.",
        },
    }


def _unmeasured(service: Service, namespace: str) -> list[Manifest]:
    """Return an alert on what the others would keep silent about: that nobody measures."""
    series = (
        f"{REQUESTS}{selector(service, namespace)}"
        if service.slo_ms is None
        else f"{DURATION}_bucket{selector(service, namespace, bound(service.slo_ms.value))}"
    )
    return [
        {
            "alert": "SloNotMeasured",
            "expr": f"absent({series})",
            "for": "15m",
            "labels": {"severity": "ticket", "namespace": namespace, "service": service.name},
            "annotations": {
                "summary": f"Nobody measures whether {service.name} in {namespace} keeps its SLO.",
                "description": f"Prometheus has no {series}: no replica runs, none is scraped, or the histogram has no "
                "bucket that ends at the SLO.",
            },
        }
    ]


def _percent(share: Decimal) -> str:
    return f"{(100 * share).normalize():f} %"


def _duration(minutes: int) -> str:
    for unit, length in (("d", 1440), ("h", 60)):
        if minutes % length == 0:
            return f"{minutes // length}{unit}"
    return f"{minutes}m"
