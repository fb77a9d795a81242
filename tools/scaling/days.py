"""Stretches of traffic to hold an autoscaler against: what was recorded, and harder days made from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tools.units import DAY_S

Floats: TypeAlias = NDArray[np.float64]

PEAK_S = 300
"""The peak is the middle of the busiest five minutes: no single second makes one."""

SPIKE_FACTOR = 2.0
SPIKE_RISE_S = 30
SPIKE_S = 600
BUSIER_FACTOR = 1.3
LOST_SHARE = 1 / 3
LAG_S = 120.0
LAGGING_S = 3600
MISSING_S = 600
SLOWDOWN = 2.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong besides the traffic.

    Attributes:
        kind: `lost_node`: ready pods are gone at once, with what waits there, and the Deployment makes new ones.
            `metrics_lag`: the controller sees every metric as it was `lag_s` earlier than usual. `metrics_missing`: no
            metric answers. `slow_pods`: the oldest ready pods take longer for everything, as next to a neighbour that
            takes the memory bandwidth or the cache; pods that come later are as fast as ever. One of these at a time.
        at_s: second of the day at which it starts.
        for_s: how long metrics lag or are missing, or pods are slow; a lost node needs none.
        share: of the ready pods that are lost or slow: rounded, at least one.
        lag_s: how much older the metrics are.
        slowdown: how many times as long slow pods take, at least 1.
    """

    kind: Literal["lost_node", "metrics_lag", "metrics_missing", "slow_pods"]
    at_s: float
    for_s: float = 0.0
    share: float = LOST_SHARE
    lag_s: float = LAG_S
    slowdown: float = SLOWDOWN


@dataclass(frozen=True, eq=False)
class Day:
    """Requests per second, one value for each second, and what goes wrong meanwhile. A day may be a week long.

    Attributes:
        name: for people and for results.
        rps: shape (seconds,), float64, finite, not negative; a read-only copy is kept.
        faults: what goes wrong.
        about: a sentence on what the day stands for.

    Raises:
        ValueError: the rates are not one finite, not negative number for each of at least one second, or a fault
            starts outside of the day, or slow pods are none: for less than a second, of no share, faster than
            measured, or slow already.
    """

    name: str
    rps: Floats
    faults: tuple[Fault, ...] = ()
    about: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Check the rates and keep them from being changed."""
        rps = np.array(self.rps, dtype=np.float64)
        if rps.ndim != 1 or rps.size == 0 or not np.isfinite(rps).all() or (rps < 0).any():
            msg = f"day `{self.name}`: rps must be one finite, not negative number for each second"
            raise ValueError(msg)
        late = [fault for fault in self.faults if not 0 <= fault.at_s < rps.size]
        if late:
            msg = f"day `{self.name}`: a {late[0].kind} at second {late[0].at_s:g} is outside of its {rps.size} s"
            raise ValueError(msg)
        problem = _bad_slowness([fault for fault in self.faults if fault.kind == "slow_pods"])
        if problem is not None:
            msg = f"day `{self.name}`: {problem}"
            raise ValueError(msg)
        rps.flags.writeable = False
        object.__setattr__(self, "rps", rps)

    @property
    def seconds(self) -> int:
        """How long it is."""
        return self.rps.size


def harder_days(recorded: Day, seed: int = 0) -> tuple[Day, ...]:
    """Make harder days from the busiest 24 hours of the recorded traffic, or from all of it if it is shorter.

    Each fault starts at a second within its minute that the seed chooses, since no fault waits for the controller.
    Where the traffic ends before a fault does, the fault is cut short.

    Args:
        recorded: the recorded traffic; its own faults are left out.
        seed: of where within its minute each fault starts.
    """
    rps = busiest_day(recorded.rps)
    draw = np.random.default_rng(seed)

    def moment(second: int) -> int:
        return min(second + int(draw.integers(60)), rps.size - 1)

    peak = peak_second(rps)
    spike, lost, lag, rise = moment(peak), moment(peak), moment(max(0, peak - LAGGING_S // 2)), moment(rise_second(rps))
    return (
        Day(
            "a spike at the peak",
            spiked(rps, spike),
            about=f"Twice the peak's load within {SPIKE_RISE_S} s, for ten minutes: a campaign, a retrying client.",
        ),
        Day("30 % more traffic", rps * BUSIER_FACTOR, about="30 % more requests all day: growth, or a lost region."),
        Day(
            "a lost node at the peak",
            rps,
            (Fault("lost_node", lost),),
            about="A third of the ready replicas, at least one, gone at once at the peak: a node that dies.",
        ),
        Day(
            "late metrics around the peak",
            rps,
            (Fault("metrics_lag", lag, LAGGING_S),),
            about="Metrics two minutes older than usual for an hour around the peak: an overloaded Prometheus.",
        ),
        Day(
            "no metrics during a rise",
            rps,
            (Fault("metrics_missing", rise, MISSING_S),),
            about="No metric answers for ten minutes while the traffic rises: an adapter that restarts.",
        ),
    )


def busiest_day(rps: Floats) -> Floats:
    """Return the 24 hours with the most requests, from a full hour of the recording on; the earliest of equals."""
    if rps.size <= DAY_S:
        return rps
    passed = np.concatenate(([0.0], np.cumsum(rps)))
    starts = np.arange(0, rps.size - DAY_S + 1, 3600)
    start = int(starts[np.argmax(passed[starts + DAY_S] - passed[starts])])
    return rps[start : start + DAY_S]


def peak_second(rps: Floats) -> int:
    """Return the middle of the busiest `PEAK_S` seconds."""
    width = min(PEAK_S, rps.size)
    return int(np.argmax(_means(rps, width))) + width // 2


def rise_second(rps: Floats) -> int:
    """Return where the load rises most within the next `MISSING_S` seconds, minute against minute."""
    minute = min(60, rps.size)
    means = _means(rps, minute)
    ahead = min(MISSING_S, means.size - 1)
    return int(np.argmax(means[ahead:] - means[: means.size - ahead]))


def spiked(rps: Floats, at: int) -> Floats:
    """Return the traffic with `SPIKE_FACTOR` times the load for `SPIKE_S`, after a ramp, from second `at` on."""
    end = at + SPIKE_RISE_S + SPIKE_S
    seconds = np.arange(rps.size)
    return rps * np.interp(
        seconds, [at, at + SPIKE_RISE_S, end, end + SPIKE_RISE_S], [1, SPIKE_FACTOR, SPIKE_FACTOR, 1]
    )


def _bad_slowness(faults: Sequence[Fault]) -> str | None:
    """Say why pods cannot be slow like this, if they cannot."""
    for fault in faults:
        if not (fault.for_s >= 1 and fault.slowdown >= 1 and 0 < fault.share <= 1):
            return (
                "slow_pods need at least a second, a slowdown of at least 1 and a share in (0, 1], not "
                f"{fault.for_s:g} s, {fault.slowdown:g} and {fault.share:g}"
            )
    for before, after in itertools.pairwise(sorted(faults, key=lambda fault: fault.at_s)):
        if before.at_s + before.for_s > after.at_s:
            return f"slow_pods from second {after.at_s:g} on begin before those from {before.at_s:g} on end"
    return None


def _means(rps: Floats, width: int) -> Floats:
    """Return the mean of each `width` consecutive seconds."""
    passed = np.concatenate(([0.0], np.cumsum(rps)))
    return (passed[width:] - passed[:-width]) / width
