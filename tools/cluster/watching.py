"""Judging what was seen while a change is watched: pure rules, each limit with its reason.

What could not be measured is never taken for fine: it is "cannot tell", and a change about which nothing could be told
is not verified.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tools.cluster.hpa_object import HpaObject
from tools.cluster.text import MESSAGE_LIMIT, shown

PERIOD_S = 15.0
"""The HPA controller looks every 15 s: looking more often sees nothing more."""
INACTIVE_S = 60.0
"""ScalingActive may be False for so long: four syncs. A metric that is new to the adapter takes one or two of its
refreshes (30 s) to appear."""
UNABLE_S = 30.0
"""AbleToScale may be False for so long: two syncs. One is what a write conflict on the Deployment costs."""
SILENT_S = 120.0
"""The source of p99 may give nothing for so long: eight scrapes of 15 s."""
UNREACHABLE_S = 120.0
"""The API server may not answer for so long: a rolling upgrade of a control plane with one node takes about that."""
SLO_SHARE = 0.25
"""Share of the checks whose p99 may be above the SLO. With a window of 600 s these are 150 s: replicas that the new
setting asks for need 30 to 120 s before they serve."""
REVERSALS = 2
"""How often the wanted number of replicas may turn around. Up and down again is a burst; a third turn is flapping."""


@dataclass(frozen=True)
class Check:
    """What one look at the HPA and the SLO gave. None stands for "cannot tell" throughout.

    Attributes:
        at: when.
        reachable: whether the API server answered.
        able: AbleToScale.
        active: ScalingActive.
        trouble: what the controller says of a condition that is False.
        replicas: how many the controller wants.
        p99_ms: the latest p99.
    """

    at: datetime
    reachable: bool
    able: bool | None = None
    active: bool | None = None
    trouble: str = ""
    replicas: int | None = None
    p99_ms: float | None = None


def check_of(obj: HpaObject, *, at: datetime, p99_ms: float | None) -> Check:
    """Return what an HPA that was read, and a p99, say."""
    conditions = [obj.condition(kind) for kind in ("AbleToScale", "ScalingActive")]
    trouble = [f"{c.reason}: {c.message}" for c in conditions if c is not None and c.status == "False"]
    able, active = ({"True": True, "False": False}.get(c.status) if c is not None else None for c in conditions)
    return Check(
        at=at,
        reachable=True,
        able=able,
        active=active,
        trouble=shown("; ".join(trouble), MESSAGE_LIMIT),
        replicas=obj.desired_replicas,
        p99_ms=None if p99_ms is None or math.isnan(p99_ms) or p99_ms < 0 else p99_ms,
    )


def breach(checks: Sequence[Check], *, since: datetime, slo_ms: float | None, planned: int) -> str | None:
    """Return the promise that is broken beyond repair, as a sentence; None as long as there is none.

    Args:
        checks: all of the window, in order; at least one.
        since: when watching began.
        slo_ms: p99 to keep; None if latency is not watched.
        planned: how many checks the window holds.
    """
    last = checks[-1]
    if _for_s(checks, since, lambda c: c.reachable) >= UNREACHABLE_S:
        return f"The API server has not answered for {UNREACHABLE_S:.0f} s: nobody can tell how the change does."
    if last.active is False and _for_s(checks, since, lambda c: c.active is not False) >= INACTIVE_S:
        return f"The HPA has not been able to compute replicas for {INACTIVE_S:.0f} s. {last.trouble}"
    if last.able is False and _for_s(checks, since, lambda c: c.able is not False) >= UNABLE_S:
        return f"The HPA has not been able to scale for {UNABLE_S:.0f} s. {last.trouble}"
    turns = reversals([c.replicas for c in checks])
    if turns > REVERSALS:
        return f"The number of replicas turned around {turns} times, more than {REVERSALS}: it flaps."
    return None if slo_ms is None else _slo_breach(checks, since=since, slo_ms=slo_ms, planned=planned)


def shortfall(checks: Sequence[Check], *, slo_ms: float | None) -> str | None:
    """Return, at the end of a window without a breach, why it still cannot be called verified; None if it can.

    Args:
        checks: all of the window, in order; the last one reached the API server.
        slo_ms: p99 to keep; None if latency is not watched.
    """
    last = checks[-1]
    if last.active is not True or last.able is False:
        return f"The HPA does not say that it scales (ScalingActive, AbleToScale). {last.trouble}".strip()
    if slo_ms is None:
        return None
    told = [c.p99_ms for c in checks if c.p99_ms is not None]
    if not told:
        return "p99 could not be measured once in the whole window."
    bad = sum(p99_ms > slo_ms for p99_ms in told)
    return _too_often(bad, len(told), slo_ms) if bad > SLO_SHARE * len(told) else None


def reversals(replicas: Sequence[int | None]) -> int:
    """Return how often a number of replicas changed in the other direction than the time before."""
    known = [n for n in replicas if n is not None]
    steps = [b > a for a, b in itertools.pairwise(known) if a != b]
    return sum(a != b for a, b in itertools.pairwise(steps))


def _slo_breach(checks: Sequence[Check], *, since: datetime, slo_ms: float, planned: int) -> str | None:
    if _for_s(checks, since, lambda c: c.p99_ms is not None) >= SILENT_S:
        return f"p99 could not be measured for {SILENT_S:.0f} s: nobody can tell whether the SLO is kept."
    bad = sum(c.p99_ms is not None and c.p99_ms > slo_ms for c in checks)
    # Against the whole window: what is too much already cannot become fine any more.
    return _too_often(bad, planned, slo_ms) if bad > SLO_SHARE * planned else None


def _too_often(bad: int, total: int, slo_ms: float) -> str:
    return f"p99 was above {slo_ms:g} ms in {bad} of {total} checks, more than {SLO_SHARE:.0%} of them."


def _for_s(checks: Sequence[Check], since: datetime, is_fine: Callable[[Check], bool]) -> float:
    """Return for how long, up to the last check, none was fine."""
    fine = next((c.at for c in reversed(checks) if is_fine(c)), since)
    return (checks[-1].at - fine).total_seconds()
