"""What queueing theory says of a queue in its steady state: the yardstick for everything that is simulated.

In all of them requests arrive by a Poisson process and are served first come first served. `rate_rps` is their rate,
`service_s` the mean time that a server takes. Offered load is their product, in servers' worth of work (erlang).
"""

from __future__ import annotations

import math

BISECTIONS = 100
"""Halvings of (0, 1): more than a float can tell apart."""


def erlang_b(servers: int, offered: float) -> float:
    """Return the share of requests that find all servers busy, and leave, in M/M/c/c (Erlang's loss formula).

    By the recurrence `B(c) = a B(c-1) / (c + a B(c-1))`, `B(0) = 1`, in which nothing can overflow (Jagerman, Some
    properties of the Erlang loss function, Bell System Technical Journal 53, 1974).

    Raises:
        ValueError: there is no server, or the offered load is negative or not finite.
    """
    _require_servers(servers)
    if not (math.isfinite(offered) and offered >= 0):
        raise ValueError(f"the offered load must be finite and not negative, not {offered!r}")
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """Return the share of requests that have to wait in M/M/c (Kleinrock, Queueing Systems I, 1975, eq. 3.40).

    `C = B / (1 - rho (1 - B))` with Erlang's loss formula B and `rho = a / c`.

    Raises:
        ValueError: as `erlang_b`, or the servers cannot hold the load.
    """
    blocked = erlang_b(servers, offered)
    return blocked / (1 - _utilization(servers, offered) * (1 - blocked))


def mmc_mean_wait_s(rate_rps: float, service_s: float, servers: int = 1) -> float:
    """Return the mean wait in M/M/c, exponential service: `C / (c mu - lambda)`.

    Gross, Shortle, Thompson and Harris, Fundamentals of Queueing Theory, 4th ed., 2008, section 2.3.

    Raises:
        ValueError: an argument is out of its range, or the servers cannot hold the load.
    """
    offered = _offered(rate_rps, service_s)
    return erlang_c(servers, offered) * service_s / (servers - offered)


def mmc_wait_quantile_s(rate_rps: float, service_s: float, servers: int, quantile: float) -> float:
    """Return a quantile of the wait in M/M/c: `P(wait > t) = C exp(-(c mu - lambda) t)`. 0 for those who need not wait.

    Gross, Shortle, Thompson and Harris, Fundamentals of Queueing Theory, 4th ed., 2008, section 2.3.

    Raises:
        ValueError: an argument is out of its range, or the servers cannot hold the load.
    """
    if not 0 <= quantile < 1:
        raise ValueError(f"quantile must be at least 0 and below 1, not {quantile!r}")
    offered = _offered(rate_rps, service_s)
    waiting = erlang_c(servers, offered)
    if waiting <= 1 - quantile:
        return 0.0
    return math.log(waiting / (1 - quantile)) * service_s / (servers - offered)


def mg1_mean_wait_s(rate_rps: float, service_s: float, service_scv: float) -> float:
    """Return the mean wait in M/G/1, any service time: `rho / (1 - rho) * service * (1 + scv) / 2`.

    The Pollaczek-Khinchine mean value formula (Kleinrock, Queueing Systems I, 1975, section 5.6).

    Args:
        rate_rps: arrivals per second.
        service_s: mean time of a service.
        service_scv: its variance over the square of its mean: 0 if fixed, 1 if exponential.

    Raises:
        ValueError: an argument is out of its range, or the server cannot hold the load.
    """
    _require_scv(service_scv)
    rho = _utilization(1, _offered(rate_rps, service_s))
    return rho / (1 - rho) * service_s * (1 + service_scv) / 2


def md1_mean_wait_s(rate_rps: float, service_s: float) -> float:
    """Return the mean wait in M/D/1, where all take the same time: half of that in M/M/1. See `mg1_mean_wait_s`."""
    return mg1_mean_wait_s(rate_rps, service_s, 0.0)


def mgc_mean_wait_s(rate_rps: float, service_s: float, servers: int, service_scv: float) -> float:
    """Return about the mean wait in M/G/c: that in M/M/c, times `(1 + scv) / 2`.

    Allen and Cunneen's approximation (Allen, Probability, Statistics, and Queueing Theory, 2nd ed., 1990, chapter 5);
    for Poisson arrivals it is that of Lee and Longton (Operational Research Quarterly 10, 1959). Exact for one server,
    and for exponential service.

    Raises:
        ValueError: an argument is out of its range, or the servers cannot hold the load.
    """
    _require_scv(service_scv)
    return mmc_mean_wait_s(rate_rps, service_s, servers) * (1 + service_scv) / 2


def bulk_mean_wait_s(rate_rps: float, service_s: float, max_batch: int) -> float:
    """Return the mean wait before one server that, whenever idle, takes all that wait, at most `max_batch`.

    M/M(1,b)/1: exponential service, equally long for a batch of any size (Neuts, A general class of bulk queues with
    Poisson input, Annals of Mathematical Statistics 38, 1967). With n waiting behind a busy server the balance
    equations are `(lambda + mu) p[n] = lambda p[n-1] + mu p[n+b]`, so `p[n] = p[0] r^n`, where r solves
    `r + r^2 + ... + r^b = lambda / mu`; and `lambda p[idle] = mu p[0]`. The mean wait follows by Little's law.

    Raises:
        ValueError: an argument is out of its range, or the server cannot hold the load.
    """
    if max_batch < 1:
        raise ValueError(f"max_batch must be at least 1, not {max_batch!r}")
    offered = _offered(rate_rps, service_s)
    if not offered < max_batch:
        raise ValueError(f"an offered load of {offered:g} is more than batches of {max_batch} hold")
    ratio = _bulk_ratio(offered, max_batch)
    none_waits = 1 / (1 / offered + 1 / (1 - ratio))
    return none_waits * ratio / (1 - ratio) ** 2 / rate_rps


def _bulk_ratio(offered: float, max_batch: int) -> float:
    """Return the r in (0, 1) for which `r + ... + r^b` is the offered load; the sum rises with r from 0 to b."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        total = middle * math.expm1(max_batch * math.log(middle)) / (middle - 1)
        low, high = (middle, high) if total < offered else (low, middle)
    return low


def _offered(rate_rps: float, service_s: float) -> float:
    for name, value in (("rate_rps", rate_rps), ("service_s", service_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, not {value!r}")
    return rate_rps * service_s


def _utilization(servers: int, offered: float) -> float:
    if not offered < servers:
        raise ValueError(
            f"an offered load of {offered:g} is more than servers={servers} hold: the queue grows for ever"
        )
    return offered / servers


def _require_servers(servers: int) -> None:
    if servers < 1:
        raise ValueError(f"servers must be at least 1, not {servers!r}")


def _require_scv(service_scv: float) -> None:
    if not (math.isfinite(service_scv) and service_scv >= 0):
        raise ValueError(f"service_scv must be finite and not negative, not {service_scv!r}")
