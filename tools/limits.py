"""How long things may take, and how often they are repeated: part of every question that is asked."""

from __future__ import annotations

from tools.contracts import Contract


class BenchLimits(Contract):
    """Limits of one session; times in seconds."""

    trial_s: float = 300.0
    """After which a task is killed."""
    screen_point_s: float = 3.5
    """For one batch size of a trial."""
    sweep_point_s: float = 2.5
    """For one batch size of a sweep."""
    longer_s: float = 10.0
    """For a leader that is measured for longer, once there are enough calls to bound its p99."""
    tail_s: float = 20.0
    """For a batch size whose p99 is wanted closely."""
    comparison_processes: int = 7
    comparison_rounds: int = 1
    """In each process of a comparison."""
    comparison_block_s: float = 0.1
    """One side's turn in a round."""
    comparison_s: float = 60.0
    """After which no further process of a comparison is started, if there are three."""
    tolerate_noise: bool = False
    """Keep what was timed while other processes took the CPUs: wider intervals, where UNSTABLE would be the answer."""
