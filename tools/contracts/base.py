"""What every contract is: frozen, JSON-ready, and named by the digest of its content."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

JsonScalar: TypeAlias = str | int | float | bool | None


class Contract(BaseModel):
    """Base of all contracts: immutable, and unknown fields are an error.

    JSON has no infinity: it is written as a string, which is read back as the number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def digest_of(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of a JSON-ready value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Interval(Contract):
    """An estimate with its 95 % confidence interval and the number of samples that it rests on."""

    value: float
    low: float
    high: float
    n: int = Field(ge=0)

    def scaled(self, factor: float) -> Interval:
        """Return the interval of `factor * x` for a positive factor."""
        return Interval(value=self.value * factor, low=self.low * factor, high=self.high * factor, n=self.n)

    def inverse(self, numerator: float = 1.0) -> Interval:
        """Return the interval of `numerator / x` for a positive x: the ends change places."""
        return Interval(value=numerator / self.value, low=numerator / self.high, high=numerator / self.low, n=self.n)


class Latency(Contract):
    """Quantiles of the time of one call, in milliseconds."""

    p50: Interval
    p95: Interval
    p99: Interval
