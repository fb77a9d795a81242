"""Ready pods in cohorts: a stack of groups that are alike, the oldest at the bottom, and what is logged of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Cohort(NamedTuple):
    """Ready pods that are alike."""

    pods: int
    waiting: float
    """Requests that wait in each."""
    slowdown: float = 1.0
    """How many times as long as measured each takes."""


class Slow(NamedTuple):
    """Since a second, so many of the ready pods are slow: the oldest."""

    since: int
    pods: int
    slowdown: float


class Backlogs(NamedTuple):
    """A span in which requests waited, or more came than were served, in one cohort."""

    start: int
    """Its first second."""
    pods: int
    """In the cohort."""
    ready: int
    """In all cohorts: over so many the requests are spread."""
    slowdown: float
    """Of the cohort."""
    waiting: list[float]
    """Requests that wait in each pod at the beginning of each second."""


class Drained(NamedTuple):
    """What happens to the requests that waited in pods that stopped."""

    at: int
    """Second in which those that are not served are refused."""
    served: float
    refused: float
    waiting: float
    """Neither, as the day ended before."""


def counted(cohorts: Iterable[Cohort]) -> int:
    """Return how many pods there are."""
    return sum(cohort.pods for cohort in cohorts)


def slow_among(cohorts: Iterable[Cohort]) -> tuple[int, float]:
    """Return how many pods are slow, and their slowdown: the same of all; 1 if none is slow."""
    slow = [cohort for cohort in cohorts if cohort.slowdown > 1]
    return counted(slow), slow[0].slowdown if slow else 1.0


def merged(cohorts: Iterable[Cohort]) -> list[Cohort]:
    """Return cohorts in which nothing waits as one of slow pods and one of others, so far as there are any."""
    cohorts = list(cohorts)
    slow, slowdown = slow_among(cohorts)
    return _there(Cohort(slow, 0.0, slowdown), Cohort(counted(cohorts) - slow, 0.0))


def slowed(cohorts: Iterable[Cohort], share: float, slowdown: float) -> list[Cohort]:
    """Return the cohorts with the oldest pods slow, and all others as fast as measured.

    Args:
        cohorts: the oldest first.
        share: of the pods that become slow: rounded, at least one. With 0 none stays slow.
        slowdown: of those.
    """
    cohorts = list(cohorts)
    left = max(1, round(share * counted(cohorts))) if share else 0
    result = []
    for pods, waiting, _ in cohorts:
        slow = min(pods, left)
        left -= slow
        result += _there(Cohort(slow, waiting, slowdown), Cohort(pods - slow, waiting))
    return result


def take_newest(cohorts: list[Cohort], pods: int) -> list[Cohort]:
    """Remove up to so many pods from the stack, the newest first, and return them."""
    taken = []
    while pods and cohorts:
        cohort = cohorts.pop()
        leaving = min(pods, cohort.pods)
        pods -= leaving
        if leaving < cohort.pods:
            cohorts.append(cohort._replace(pods=cohort.pods - leaving))
        taken.append(cohort._replace(pods=leaving))
    return taken


def _there(*cohorts: Cohort) -> list[Cohort]:
    return [cohort for cohort in cohorts if cohort.pods]
