"""Numbers and names as a person reads them, the same on the page and in the terminal.

Measured values carry three significant digits, their intervals as many decimals as the value. Text that came from
outside (layer names, error messages, notes) goes through `clean` before it is shown anywhere.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping

from tools.contracts import Interval, JsonScalar
from tools.spec import Objective

PERCENT_METRICS = ("top1", "top5")
"""Metrics that are fractions of items: shown in percent, their differences in points."""

NOTHING = "\N{EN DASH}"
"""What stands where nothing was measured."""

_SIGNIFICANT = 3
_LABELS = {
    "agreement": "same answers as the original",
    "expected_gain": "expected gain",
    "layers_float": "layers in float",
    "layers_total": "layers in all",
    "nodes_after": "operators after",
    "nodes_before": "operators before",
    "nonzero_parameters": "parameters that are not zero",
    "sd": "likely within",
    "seconds": "time",
    "sparsity": "zeros",
}
"""Names of facts that their field's name does not say well."""
_LARGEST_LOG = 700.0
_MINUTE_S = 60
_HOUR_S = 3600


def clean(text: str) -> str:
    """Return the text on one line, without characters that act on a terminal or on the reading direction."""
    spaced = "".join(" " if c.isspace() else c for c in text)
    return "".join(_visible(c) for c in spaced)


def squeeze(text: str, width: int) -> str:
    """Return at most `width` characters, with what is missing in the middle: a recipe says most at both its ends."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"[: max(width, 0)]


def shorten(text: str, width: int) -> str:
    """Return at most `width` characters; a long name loses its start, because its end tells it from its siblings."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def decimals(value: float) -> int:
    """Return how many decimals show three significant digits of a value."""
    if value == 0 or not math.isfinite(value):
        return 0 if value else 2
    digits = _SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))
    if round(abs(value), digits) >= 10 ** (_SIGNIFICANT - digits):  # 9.999 rounds up to one more digit: 10.0
        digits -= 1
    return max(digits, 0)


def number(value: float, places: int | None = None) -> str:
    """Return a plain number: three significant digits, or as many decimals as asked, with thousands separators."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if places is None:
        places = decimals(value)
        if abs(value) >= 10**_SIGNIFICANT:
            value = round(value, _SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.removeprefix("-") if not float(text.replace(",", "")) else text


def significant(value: float, digits: int) -> str:
    """Return a number to so many significant digits, without zeros at its end and without an exponent."""
    return f"{float(f'{value:.{digits}g}'):,.12g}"


def signed(value: float, places: int) -> str:
    """Return a number with its sign; zero, and what rounds to it, is `+0`."""
    text = number(value, places)
    return text if text.startswith("-") or not math.isfinite(value) else f"+{text}"


def ms(value: float) -> str:
    """Return a time: `1.03 ms`."""
    return f"{number(value)} ms"


def rate(value: float) -> str:
    """Return requests per second: `2,540/s`."""
    return f"{number(value)}/s"


def mb(value: float) -> str:
    """Return a size in 10^6 bytes: `23.5 MB`."""
    return f"{number(value)} MB"


def usd(value: float) -> str:
    """Return money: cents from one dollar on, three significant digits below it."""
    return f"${number(value, 2 if abs(value) >= 1 or value == 0 else None)}"


def mflop(value: float) -> str:
    """Return the work of one item, from floating-point operations: `669 MFLOP`."""
    return f"{number(value / 1e6)} MFLOP"


def count(value: float) -> str:
    """Return how many there are of something: `4,242`, from a million on `23.5 M`."""
    return f"{number(value / 1e6)} M" if value >= 1e6 else number(value, 0)


def percent(value: float, places: int = 1) -> str:
    """Return a share: `98.3 %`."""
    return f"{number(value * 100, places)} %"


def gain(log_ratio: float) -> str:
    """Return how many times as good a logarithm of a ratio means: `2.10x`."""
    return f"{number(math.exp(log_ratio) if log_ratio < _LARGEST_LOG else math.inf)}x"


def seconds(value: float) -> str:
    """Return a duration: `0.4 s`, `48 s`, `3 min 12 s`, `1 h 05 min`, `24 h`."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        minutes, rest = divmod(whole, _MINUTE_S)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(value / _MINUTE_S), _MINUTE_S)
    return f"{hours} h {rest:02d} min" if rest else f"{hours} h"


def span(interval: Interval, scale: float = 1.0) -> str:
    """Return the ends of an interval with the decimals of its value: `[1.01, 1.06]`."""
    places = decimals(interval.value * scale)
    value = abs(interval.value * scale)
    if value >= 10**_SIGNIFICANT:
        return f"[{number(interval.low * scale)}, {number(interval.high * scale)}]"
    return f"[{number(interval.low * scale, places)}, {number(interval.high * scale, places)}]"


def ratio(interval: Interval) -> str:
    """Return a ratio with its interval: `12.4x [12.1, 12.7]`."""
    return f"{number(interval.value)}x {span(interval)}"


def accuracy(value: float, metric: str) -> str:
    """Return the metric's value: in percent for top1 and top5, else plain."""
    if not math.isfinite(value):
        return number(value)
    return f"{number(value * 100, 2)} %" if metric in PERCENT_METRICS else f"{value:.4g}"


def drop(value: float, metric: str) -> str:
    """Return an accuracy drop, positive when worse: `+0.17 points`, or plain in the metric's own unit."""
    if not math.isfinite(value):
        return number(value)
    return f"{signed(value * 100, 2)} points" if metric in PERCENT_METRICS else f"{value:+.4g}"


def drop_span(interval: Interval, metric: str) -> str:
    """Return the interval of an accuracy drop: `[-0.17, +0.50]`."""
    if metric in PERCENT_METRICS:
        return f"[{signed(interval.low * 100, 2)}, {signed(interval.high * 100, 2)}]"
    return f"[{interval.low:+.4g}, {interval.high:+.4g}]"


def loss(drop: Interval) -> str:
    """Return in words whether an accuracy drop is one beyond the noise."""
    if drop.low > 0:
        return "a loss beyond the noise"
    return "a gain beyond the noise" if drop.high < 0 else "no change beyond the noise"


def objective(asked: Objective, metric: str) -> str:
    """Return what was asked for: `lowest cost, p99 at most 25.0 ms, accuracy drop at most 1.00 points`."""
    limit = asked.max_accuracy_drop
    unit = f"{number(limit * 100, 2)} points" if metric in PERCENT_METRICS else f"{limit:.4g}"
    parts = [f"lowest {asked.minimize}"]
    if asked.p99_ms is not None:
        parts.append(f"p99 at most {ms(asked.p99_ms)}")
    parts.append(f"accuracy drop at most {unit}")
    if asked.max_memory_mb is not None:
        parts.append(f"memory at most {mb(asked.max_memory_mb)}")
    if asked.max_size_mb is not None:
        parts.append(f"size at most {mb(asked.max_size_mb)}")
    return ", ".join(parts)


def quantity(name: str, value: JsonScalar) -> str:
    """Return a value in its unit: that of its suffix (`p50_ms`, `size_mb`, `cost_usd`), or of a fact known by name."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return clean(value)
    if name in _KNOWN and math.isfinite(value):
        return _KNOWN[name](value)
    for suffix, show in (("_ms", ms), ("_rps", rate), ("_mb", mb), ("_usd", usd), ("_s", seconds)):
        if name.endswith(suffix) and math.isfinite(value):
            return show(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


_KNOWN: Mapping[str, Callable[[float], str]] = {
    "agreement": percent,
    "chance": lambda share: percent(share, 0),
    "expected_gain": gain,
    "sd": lambda log_ratio: f"a factor of {gain(log_ratio).removesuffix('x')}",
    "seconds": seconds,
    "sparsity": percent,
}
"""How facts are shown whose name has no unit."""


def label(name: str) -> str:
    """Return a field's name in words, without the unit that `quantity` shows: `p50_ms` gives `p50`."""
    if name in _LABELS:
        return _LABELS[name]
    for suffix in ("_ms", "_rps", "_mb", "_usd", "_s"):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return clean(name).replace("_", " ")


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cf"):
        return ""
    return "\ufffd" if category in ("Cs", "Co", "Cn") else character
