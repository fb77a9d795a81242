"""Made-up traffic."""

from hypothesis import strategies as st

from tools.traffic.trace import LEAST_RPS


def rates(size):
    """Return lists of so many rates in which there is traffic; some are zero, or as good as."""
    return st.lists(st.floats(0, 1e5), min_size=size, max_size=size).filter(lambda drawn: max(drawn) >= LEAST_RPS)
