"""The recommendation as a sentence that a person can repeat. It says what the numbers say, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence

from tools.contracts.recommendation import Judged, Shortfall, StaticNeed
from tools.contracts.scaling import DayOutcome, ScalingOption
from tools.units import DAY_MINUTES, HOUR_MINUTES, WEEK_MINUTES

SAME_COST = 0.005
"""Costs that differ by less than this share are called the same."""

_NAMED_SHORTFALLS = 2


def sentence(
    *,
    slo_ms: float,
    static: StaticNeed | None,
    chosen: ScalingOption | None,
    today: Judged | None,
    unplayable: str | None = None,
    closest: Judged | None = None,
) -> str:
    """Say what is recommended, and what the HPA in use does worse or better.

    "2 replicas hold 95 % of the traffic, a 3rd takes the spikes; today's HPA would have missed the SLO in 41 minutes of
    the week and costs 1.7x."

    Args:
        slo_ms: p99 to keep.
        static: replicas that hold the traffic if nothing ever changes; None if no number does.
        chosen: the recommended setting; None if none keeps every promise.
        today: the HPA in use, if there is one that can be played.
        unplayable: why the HPA in use cannot be played.
        closest: if none is chosen, the setting that misses by the least.
    """
    if static is None:
        return (
            f"No number of replicas keeps the SLO: one alone, hardly used, takes more than {slo_ms:g} ms at p99. "
            "A faster configuration is needed, or another SLO."
        )
    parts = [holding(static)]
    if chosen is not None and chosen.is_today:
        parts.append(_change_nothing(chosen.outcomes[0]))
    elif chosen is not None:
        parts.append(_compared(today, chosen.outcomes[0]) or _recommended(chosen))
    else:
        parts.append(_infeasible(closest, today))
    if unplayable is not None:
        parts.append(f"today's HPA cannot be compared: {unplayable.rstrip('.')}")
    return "; ".join(part for part in parts if part) + "."


def holding(static: StaticNeed) -> str:
    """Say how many replicas it takes: `2 replicas hold 95 % of the traffic, a 3rd takes the spikes`."""
    more = static.peak - static.p95
    verb = "holds" if static.p95 == 1 else "hold"
    some = f"{counted(static.p95, 'replica')} {verb}"
    if more == 0:
        return f"{some} all of the traffic"
    if more == 1:
        article = "an" if _with_vowel(static.peak) else "a"
        return f"{some} 95 % of the traffic, {article} {ordinal(static.peak)} takes the spikes"
    return f"{some} 95 % of the traffic, {more:,} more take the spikes"


def stretch(minutes: int) -> str:
    """Name a length of recorded traffic: `the week`, `the day`, `these 9 days`, `these 3 hours`, `these 40 minutes`."""
    for length, name in ((WEEK_MINUTES, "the week"), (DAY_MINUTES, "the day"), (HOUR_MINUTES, "the hour")):
        if abs(minutes - length) <= length / 100:
            return name
    for length, unit in ((DAY_MINUTES, "day"), (HOUR_MINUTES, "hour"), (1, "minute")):
        if minutes >= 2 * length:
            return f"these {counted(minutes / length, unit)}"
    return "this minute"


def counted(number: float, unit: str) -> str:
    """Return a number with its unit, which takes an s unless it is one: `1 minute`, `1,440 minutes`, `2.5 days`."""
    text = f"{number:,.1f}".removesuffix(".0")
    return f"{text} {unit}{'' if text == '1' else 's'}"


def ordinal(number: int) -> str:
    """Return `1st`, `2nd`, `3rd`, `11th`, `22nd`."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def times(ratio: float) -> str:
    """Say what something costs against another: `1.7x`, `4 % more`, `20 % less`, `the same`."""
    if abs(ratio - 1) < SAME_COST:
        return "the same"
    if ratio < 1:
        return f"{_percent(1 - ratio)} less"
    if ratio < 1.095:
        return f"{_percent(ratio - 1)} more"
    return f"{ratio:,.1f}x" if ratio < 9.95 else f"{ratio:,.0f}x"


def told(shortfalls: Sequence[Shortfall]) -> str:
    """Return the promises that a setting breaks, the first few in words."""
    named = " and ".join(shortfall.sentence for shortfall in shortfalls[:_NAMED_SHORTFALLS])
    more = len(shortfalls) - _NAMED_SHORTFALLS
    return f"{named}, and breaks {counted(more, 'more promise')}" if more > 0 else named


def _change_nothing(outcome: DayOutcome) -> str:
    missed = _missed(outcome) or f"misses the SLO in no minute of {stretch(outcome.minutes)}"
    return f"change nothing: today's HPA {missed}, and nothing that was tried keeps every promise for 1 % less"


def _recommended(chosen: ScalingOption) -> str:
    outcome = chosen.outcomes[0]
    missed = counted(outcome.missed_minutes, "minute") if outcome.missed_minutes else "no minute"
    return (
        f"`{chosen.name}` would have missed the SLO in {missed} of {stretch(outcome.minutes)} "
        f"and costs ${outcome.cost_usd / outcome.minutes * DAY_MINUTES:,.2f} a day"
    )


def _compared(today: Judged | None, chosen: DayOutcome) -> str:
    """Say what the HPA in use does against the chosen setting; nothing if there is none."""
    if today is None:
        return ""
    ratio = today.option.outcomes[0].cost_usd / chosen.cost_usd
    what, breaks = _kept(today)
    if abs(ratio - 1) < SAME_COST:
        return f"today's HPA {what} at the same cost"
    link = {
        (True, True): " and costs",
        (True, False): ", though it costs",
        (False, True): ", but costs",
        (False, False): " and costs",
    }[breaks, ratio > 1]
    return f"today's HPA {what}{link} {times(ratio)}"


def _kept(today: Judged) -> tuple[str, bool]:
    """Say how the HPA in use keeps its promises, and whether it breaks one."""
    outcome = today.option.outcomes[0]
    broken = {shortfall.promise: shortfall for shortfall in today.shortfalls}
    if "slo" in broken:
        return f"would have {_missed(outcome)}", True
    if broken:
        return told(today.shortfalls[:1]), True
    if outcome.missed_minutes:
        return f"keeps the SLO as well ({counted(outcome.missed_minutes, 'minute')} missed)", False
    return "keeps the SLO as well", False


def _infeasible(closest: Judged | None, today: Judged | None) -> str:
    if closest is None:
        return "the bounds leave no setting to try"
    who = "today's HPA" if closest.option.is_today else f"`{closest.option.name}`"
    text = f"no setting that was tried keeps every promise: the closest, {who}, {told(closest.shortfalls)}"
    if today is None or closest.option.is_today:
        return text
    return f"{text}; today's HPA {_kept(today)[0]}"


def _missed(outcome: DayOutcome) -> str:
    if not outcome.missed_minutes:
        return ""
    return f"missed the SLO in {counted(outcome.missed_minutes, 'minute')} of {stretch(outcome.minutes)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0095 else f"{100 * share:.1f} %"


def _with_vowel(number: int) -> bool:
    """Whether the name of a number begins with a vowel: eight, eleven, eighteen, eighty, eight hundred."""
    text = f"{number:,}".split(",", maxsplit=1)[0]
    return text.startswith("8") or text in ("11", "18")
