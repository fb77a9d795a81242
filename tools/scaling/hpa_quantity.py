"""Kubernetes quantities, such as `30`, `500m`, `1k`, `2Gi` or `1e3`.

Source: `k8s.io/apimachinery/pkg/api/resource/quantity.go`.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from tools.errors import SpecError

_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE])|[eE](?P<power>[+-]?\d{1,3}))?",
    re.ASCII,
)
_DECIMAL_POWER = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_MOST = 2**63 - 1
"""Larger numbers are cut to this."""
_BINARY_POWER = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity_milli(value: Any, where: str) -> int:
    """Return a quantity in whole thousandths, rounded up as `Quantity.MilliValue` does.

    Args:
        value: a text, or a number as YAML has it.
        where: the field, for the message.

    Raises:
        SpecError: it is no quantity.
    """
    return math.ceil(_exact(value, where) * 1000)


def quantity_float(value: Any, where: str) -> float:
    """Return a quantity as the nearest number that `Quantity.AsApproximateFloat64` gives.

    The server stores the canonical text, such as `50m` for 0.05, and the controller multiplies 50 by 10^-3. The
    product can differ from 0.05 in the last bit, which decides on the border of a tolerance.

    Args:
        value: a text, or a number as YAML has it.
        where: the field, for the message.

    Raises:
        SpecError: it is no quantity.
    """
    exact = _exact(value, where)
    for power in (0, -3, -6, -9):
        mantissa = exact * 10**-power
        if mantissa.denominator == 1:
            break
    # Nothing is finer than nano: the rest is rounded up.
    return float(math.ceil(mantissa)) * float(f"1e{power}")


def _exact(value: Any, where: str) -> Fraction:
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SpecError(f"is {value!r}, not a quantity such as 30, 500m, 1k or 2Gi.", where=where)
    number = Fraction(match["number"])
    if match["binary"]:
        number *= int(2 ** _BINARY_POWER[match["binary"]])
    else:
        power = _DECIMAL_POWER[match["decimal"]] if match["decimal"] else int(match["power"] or 0)
        number *= Fraction(f"1e{power}")
    return min(max(number, Fraction(-_MOST)), Fraction(_MOST))
