"""How long a day is: in the units that traffic, replicas and their cost are counted in."""

from __future__ import annotations

HOUR_MINUTES = 60
DAY_MINUTES = 24 * HOUR_MINUTES
WEEK_MINUTES = 7 * DAY_MINUTES
DAY_S = 60 * DAY_MINUTES
