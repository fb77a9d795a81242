"""What the tests of the search and of its sentences share."""

from tools.contracts.scaling import DayOutcome


def day_outcome(minutes=1440, missed=0, cost=10.0, reversals=0, day="recorded"):
    """What one setting came to over a stretch of traffic, by the numbers that decide."""
    return DayOutcome(
        day=day,
        minutes=minutes,
        missed_minutes=missed,
        worst_p99_ms=10,
        replica_hours=cost,
        cost_usd=cost,
        scalings=reversals,
        reversals=reversals,
        peak_replicas=3,
        mean_replicas=2,
        requests=1,
        served=1,
        refused=0,
        waiting_at_end=0,
    )
