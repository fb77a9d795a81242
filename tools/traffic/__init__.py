"""How many requests come: traces from files and from Prometheus, a constant rate, and the bundled day."""

from tools.traffic.observed import Observed, read_observed, to_trace, write_observed
from tools.traffic.prometheus import read_traffic
from tools.traffic.trace import (
    BUNDLED_DAY,
    SERIES_POINTS,
    Trace,
    bundled_day,
    constant,
    load_trace,
    summarize,
    to_csv,
)

__all__ = [
    "BUNDLED_DAY",
    "SERIES_POINTS",
    "Observed",
    "Trace",
    "bundled_day",
    "constant",
    "load_trace",
    "read_observed",
    "read_traffic",
    "summarize",
    "to_csv",
    "to_trace",
    "write_observed",
]
