"""Which candidate next, and when to stop: a small Bayesian model over what candidates have in common. Pure.

A candidate is described by its levels (which student, runtime, precision, threads, batch ...). How much it gains over
the model as given is expected from priors, and learnt from what was measured: candidates that share levels resemble
each other, so that one measurement of a runtime says something about all that use it. The next candidate is the one
with the largest expected improvement per second that trying it costs. Nothing here measures, and no clock is read, so
that a recorded grid can stand in for the machine.

The model is Gaussian-process regression (Rasmussen and Williams, 2006, chapter 2) with a kernel that adds up over
factors and their pairs; the choice is expected improvement (Jones, Schonlau and Welch, 1998), divided by its cost
(Snoek, Larochelle and Adams, 2012).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tools.report.format import significant

Array = npt.NDArray[np.float64]

INTERACTION = 0.05
"""How much two factors depend on each other: the variance of what they do together, over the product of the standard
deviations of what each does by itself."""
OWN_SD = 0.05
"""What two candidates differ by for no reason that their levels tell."""
OCTAVES = 3.0
"""Numbers (batch, threads) resemble each other the less the further they are apart: by 1/e after so many doublings."""
LEAST_CHANCE = 0.1
"""A candidate that is less likely than this to improve by the threshold is not worth trying."""
LIKENESS_WEIGHT = 2.0
"""How many likenesses the prior belief in a candidate's feasibility is worth."""
FULL_PRECISION = frozenset({"fp32", "bf16", "fp16"})
"""A student that is not accurate enough in one of these is not in any other format, but for luck."""
LUCK = 0.03
UNSEEN_BY_ACCURACY = frozenset({"batch", "threads", "streams"})
"""Factors that do not change what a model answers."""


@dataclass(frozen=True)
class Candidate:
    """Something that could be tried."""

    key: str
    levels: Mapping[str, str]
    """Level by factor; numbers as text. All candidates of a search have the same factors."""
    gain: float
    """Expected ln(figure of the baseline / its figure) before anything was measured."""
    spread: Mapping[str, float]
    """Standard deviation of that, by the factor that it comes from; factors that are left out add none."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Expected seconds of what has to be built first, by name; candidates share parts."""
    measure_s: float = 1.0
    """Expected seconds of measuring it once it is built."""
    feasible: float = 1.0
    """Belief that it keeps every constraint, before anything was measured."""
    least_gain: float = -math.inf
    """Below this gain it breaks the SLO: the same time that costs money is the one that a request waits."""
    trials: int = 1
    """How many trials it takes: none where only more batch sizes are measured of what was tried."""
    name: str = ""
    """What a person calls it; the key, where there is none."""

    def __str__(self) -> str:
        """Return the name."""
        return self.name or self.key


@dataclass(frozen=True)
class Seen:
    """A candidate that was measured."""

    key: str
    log_gain: float
    """ln(figure of the baseline / its figure)."""
    sd: float
    """Standard deviation of that."""
    feasible: bool
    """Whether it keeps every constraint."""
    accurate: bool = True
    """Whether it keeps the constraint on accuracy, which batch and threads do not change."""


@dataclass(frozen=True)
class Prospect:
    """What is to be expected of a candidate now."""

    candidate: Candidate
    gain: float
    """Posterior mean of ln(figure of the baseline / its figure)."""
    sd: float
    feasible: float
    """Chance that it keeps every constraint."""
    chance: float
    """Chance that it does, and improves on the best so far by the threshold."""
    improvement: float
    """Expected improvement of ln(figure), over the best so far."""
    seconds: float
    """What trying it is expected to cost."""


@dataclass(frozen=True)
class Choice:
    """What to try next; `candidate` is None when it is time to stop."""

    candidate: Candidate | None
    reason: str
    prospects: tuple[Prospect, ...] = ()
    """Of all that was not measured yet, the most rewarding first."""


def next_candidate(
    candidates: Sequence[Candidate],
    seen: Sequence[Seen],
    built: set[str],
    *,
    threshold: float = 0.03,
    left_s: float = math.inf,
    trial_share_s: float = 0.0,
) -> Choice:
    """Choose the next candidate, or stop.

    Args:
        candidates: all that could be tried, and all that were.
        seen: what was measured, by key.
        built: names of the parts that are there already.
        threshold: an improvement of ln(figure) below this is not worth a trial.
        left_s: seconds that are left; what is expected to cost more is not chosen.
        trial_share_s: what a trial counts for even if it takes less, where trials are scarcer than seconds: of all
            seconds its share.

    Returns:
        The choice, with a sentence that says why.
    """
    prospects = prospects_of(candidates, seen, built, threshold, trial_share_s=trial_share_s)
    if not prospects:
        return Choice(None, "everything that could be tried was tried")
    worth = [p for p in prospects if p.chance >= LEAST_CHANCE]
    if not worth:
        likeliest = max(prospects, key=lambda p: p.chance)
        return Choice(
            None,
            f"no candidate is left that could well be better by {threshold:.0%}: "
            f"the likeliest, {likeliest.candidate}, has a chance of {likeliest.chance:.1%}",
            tuple(prospects),
        )
    affordable = [p for p in worth if p.seconds <= left_s]
    if not affordable:
        return Choice(
            None,
            f"{len(worth)} candidates could still be better, and none is expected to fit into the {left_s:.0f} s left",
            tuple(prospects),
        )
    best = affordable[0]
    return Choice(best.candidate, describe(best), tuple(prospects))


def describe(prospect: Prospect) -> str:
    """Say in a sentence what is hoped of a candidate."""
    low, high = (math.exp(prospect.gain + side * prospect.sd) for side in (-1.0, 1.0))
    return (
        f"{prospect.candidate} is expected to be {significant(low, 2)} to {significant(high, 2)} times as good as the "
        f"model as given, is the best yet with a chance of {prospect.chance:.0%}, and costs about "
        f"{prospect.seconds:.0f} s"
    )


def prospects_of(
    candidates: Sequence[Candidate],
    seen: Sequence[Seen],
    built: set[str],
    threshold: float,
    *,
    trial_share_s: float = 0.0,
) -> list[Prospect]:
    """Return what is to be expected of each candidate that was not measured, the most rewarding a second first.

    Args:
        candidates: as for `next_candidate`, like all that is not named here.
        seen: see there.
        built: see there.
        threshold: see there.
        trial_share_s: see there.
    """
    measured = {s.key for s in seen}
    open_ones = [c for c in candidates if c.key not in measured]
    if not open_ones:
        return []
    by_key = {c.key: c for c in candidates}
    known = [s for s in seen if s.key in by_key]
    means, sds = posterior(open_ones, [by_key[s.key] for s in known], known)
    best = max((s.log_gain for s in seen if s.feasible), default=-math.inf)
    chances = feasibility(open_ones, [by_key[s.key] for s in known], known)
    found = []
    for candidate, mean, sd, feasible in zip(open_ones, means, sds, chances, strict=True):
        seconds = candidate.measure_s + sum(s for part, s in candidate.parts.items() if part not in built)
        least = candidate.least_gain
        if math.isinf(best):  # nothing is feasible yet: anything that is would be an improvement
            likely = feasible * _normal_above(least, mean, sd)
            improvement = likely * (1.0 + max(mean, 0.0))
        else:
            improvement = feasible * expected_improvement(mean, sd, best, least)
            likely = feasible * _normal_above(max(best + threshold, least), mean, sd)
        found.append(
            Prospect(
                candidate=candidate,
                gain=float(mean),
                sd=float(sd),
                feasible=float(feasible),
                chance=float(likely),
                improvement=float(improvement),
                seconds=seconds,
            )
        )

    def reward(prospect: Prospect) -> float:
        return prospect.improvement / max(prospect.seconds, trial_share_s * prospect.candidate.trials)

    return sorted(found, key=lambda p: (-reward(p), p.candidate.key))


def posterior(wanted: Sequence[Candidate], known: Sequence[Candidate], seen: Sequence[Seen]) -> tuple[Array, Array]:
    """Return mean and standard deviation of the gains of `wanted`, given what was seen of `known`."""
    prior_mean = np.array([c.gain for c in wanted])
    prior_variance = np.array([_own_variance(c) for c in wanted])
    if not known:
        return prior_mean, np.sqrt(prior_variance)
    among = covariance(known, known)
    among[np.diag_indices_from(among)] += np.array([s.sd for s in seen]) ** 2 + 1e-9
    cross = covariance(wanted, known)
    residual = np.array([s.log_gain for s in seen]) - np.array([c.gain for c in known])
    solved = np.linalg.solve(among, np.column_stack([residual, cross.T]))
    mean = prior_mean + cross @ solved[:, 0]
    variance = prior_variance - np.einsum("ij,ji->i", cross, solved[:, 1:])
    return mean, np.sqrt(np.maximum(variance, 1e-12))


def covariance(left: Sequence[Candidate], right: Sequence[Candidate]) -> Array:
    """Return the covariance of candidates' gains before anything was measured, shape (left, right).

    Each factor adds the variance that comes from it where levels are alike, each pair of factors that of what they do
    together, where both are. What is left is a candidate's own, and shared with itself only.
    """
    parts = []
    for factor in sorted({f for c in (*left, *right) for f in c.spread}):
        alike = _alike([c.levels.get(factor, "") for c in left], [c.levels.get(factor, "") for c in right])
        sds = [np.array([c.spread.get(factor, 0.0) for c in side]) for side in (left, right)]
        parts.append((alike, np.outer(*sds)))
    total = OWN_SD**2 * np.array([[a.key == b.key for b in right] for a in left], dtype=float)
    for alike, variance in parts:
        total += alike * variance
    for (alike, variance), (other, other_variance) in combinations(parts, 2):
        total += INTERACTION * alike * other * np.sqrt(variance * other_variance)
    return total


def _own_variance(candidate: Candidate) -> float:
    sds = list(candidate.spread.values())
    together = sum(a * b for a, b in combinations(sds, 2))
    return OWN_SD**2 + sum(sd * sd for sd in sds) + INTERACTION * together


def feasibility(wanted: Sequence[Candidate], known: Sequence[Candidate], seen: Sequence[Seen]) -> Array:
    """Return the chance that each of `wanted` keeps every constraint.

    The prior belief counts like `LIKENESS_WEIGHT` neighbours. A candidate that differs only in what does not change
    a model's answers from one that was not accurate is not accurate either; accuracy that was once measured is not
    asked about again; and a student that is not accurate in full precision hardly is in another format.
    """
    belief = np.array([c.feasible for c in wanted])
    if not known:
        return belief
    answers: dict[tuple[tuple[str, str], ...], bool] = {}
    for candidate, one in zip(known, seen, strict=True):
        answers[_answering(candidate)] = one.accurate and answers.get(_answering(candidate), True)
    alike = _likeness(wanted, known)
    kept = np.array([s.feasible for s in seen], dtype=float)
    chance = (LIKENESS_WEIGHT * belief + alike @ kept) / (LIKENESS_WEIGHT + alike.sum(axis=1))
    accurate = [answers.get(_answering(c)) for c in wanted]
    chance = np.where([a is False for a in accurate], 0.0, chance)
    fallen = _fallen_students(known, seen)
    chance = np.where([c.levels.get("student", "") in fallen for c in wanted], np.minimum(chance, LUCK), chance)
    return np.where([a is True for a in accurate], np.maximum(chance, belief), chance)


def _fallen_students(known: Sequence[Candidate], seen: Sequence[Seen]) -> set[str]:
    """Return the students that were not accurate enough in full precision, and in no other format either."""
    verdicts = [
        (c.levels.get("student", ""), c.levels.get("precision"), s.accurate) for c, s in zip(known, seen, strict=True)
    ]
    fallen = {student for student, precision, accurate in verdicts if not accurate and precision in FULL_PRECISION}
    return fallen - {student for student, _, accurate in verdicts if accurate} - {""}


def _likeness(left: Sequence[Candidate], right: Sequence[Candidate]) -> Array:
    """Return the share of factors in which candidates are alike, cubed: only close neighbours say much."""
    factors = sorted(left[0].levels)
    alike = [_alike([c.levels[f] for c in left], [c.levels[f] for c in right]) for f in factors]
    return np.asarray(np.mean(alike, axis=0) ** 3)


def expected_improvement(mean: float, sd: float, best: float, least: float = -math.inf) -> float:
    """Return E[x - best] over x above both `best` and `least`, for x normal with this mean and standard deviation."""
    z = (mean - max(best, least)) / sd
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return float((mean - best) * _normal_cdf(z) + sd * density)


def _answering(candidate: Candidate) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((f, level) for f, level in candidate.levels.items() if f not in UNSEEN_BY_ACCURACY))


def _alike(left: Sequence[str], right: Sequence[str]) -> Array:
    """Return 1 where two levels are the same; for numbers, less the more doublings lie between them."""
    numbers = [_octave(level) for level in (*left, *right)]
    if all(n is not None for n in numbers):
        octaves = np.array(numbers, dtype=float)
        apart: Array = np.abs(octaves[: len(left), None] - octaves[None, len(left) :])
        return np.exp(-apart / OCTAVES)
    return np.array([[a == b for b in right] for a in left], dtype=float)


def _octave(level: str) -> float | None:
    try:
        return math.log2(float(level))
    except ValueError:
        return None


def _normal_cdf(z: float) -> float:
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))


def _normal_above(limit: float, mean: float, sd: float) -> float:
    return 1.0 - _normal_cdf((limit - mean) / sd)
