"""Figures in prose: which numbers a text states, in which unit, and whether one restates another. Pure.

What counts as a figure: a number with or without a unit (English, or of the languages that are asked most in), in any
script's digits, with an English or a continental decimal sign; `$5`, `12ms`, `5x`, `x5`; and an English number word
before a unit (`twelve milliseconds`, `five times`, `twice`).
What does not: names (`p99`, `int8`, `resnet50`, `ResNet-50`), ordinals (`99th`), dates, times of day, versions, the
numbers of a list, and whole numbers up to ten that stand alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

SMALL = 10
"""Whole numbers up to this one that carry no unit are prose: `two of the 3 options`."""
ROUNDING = 0.05
"""A rounded figure may be this far from what it restates, as a share: 2.1 is 2, and 1.6 is not."""

_UNITS: dict[str, dict[str, float]] = {
    "time": {
        "ns|nanoseconds?": 1e-6,
        "us|µs|μs|microseconds?|mikrosekunden?|微秒": 1e-3,
        "ms|msecs?|milliseconds?|millisekunden?|millisecondes?|milisegundos?|мс|毫秒|ミリ秒": 1.0,
        "s|secs?|seconds?|sekunden?|secondes?|segundos?|秒": 1e3,
        "min|mins|minutes?|minuten?|minutos?|分钟|分": 6e4,
        "h|hrs?|hours?|stunden?|heures?|horas?|小时|時間": 3.6e6,
        "days?|tagen?|tage|jours?|días?|天": 8.64e7,
        "weeks?": 6.048e8,
    },
    "rate": {
        r"/ ?s(?:ec(?:ond)?)?|rps|qps|per second": 1.0,
        r"(?:requests?|reqs?|items?|images?|inferences?)(?: ?/ ?s(?:ec(?:ond)?)?| (?:per|a) second)": 1.0,
        r"(?:requests?|items?)(?: ?/ ?min(?:ute)?| per minute)|/ ?min(?:ute)?|per minute": 1 / 60,
    },
    "money": {"usd|dollars?": 1.0, "cents?|¢": 0.01},
    "size": {
        "bytes?": 1e-6,
        "kb|kilobytes?": 1e-3,
        "mb|megabytes?": 1.0,
        "gb|gigabytes?": 1e3,
        "tb|terabytes?": 1e6,
        "kib": 1.024e-3,
        "mib": 1.048576,
        "gib": 1073.741824,
    },
    "share": {"%|percent(?:age points?)?|per cent|points?|pp": 0.01},
    "ratio": {"x|\u00d7|times|-?fold|-?fach|-?mal|fois|veces|раза?|倍": 1.0},
    "work": {"flops?": 1e-6, "mflops?": 1.0, "gflops?": 1e3, "tflops?": 1e6},
    "count": {
        "replicas?|pods?|instances?|requests?|trials?|cores?|threads?|gpus?|parameters?|samples?|users?": 1.0,
    },
}
_FACTORS = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip
_ALONE = {
    "twice": 2.0, "thrice": 3.0, "twofold": 2.0, "threefold": 3.0, "fourfold": 4.0, "fivefold": 5.0, "tenfold": 10.0,
}  # fmt: skip

_ALL_UNITS = [unit for units in _UNITS.values() for unit in units]
_UNIT = "|".join(f"(?:{unit})" for unit in _ALL_UNITS)
_NUMBER = r"\d+(?:[.,'\u2019\u00a0\u202f\u2009]\d+)*(?:[eE][-+]?\d{1,2}(?!\d))?"
_NUMERALS = "".join(c for c in map(chr, range(0x80, 0x10000)) if unicodedata.numeric(c, None) and not c.isdecimal())
"""Characters that are numbers and no digits: fractions, Roman and circled ones, and those of Chinese."""
_LETTER = r"[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\d_]"
"""What makes a name of the digits behind it: `p99`. In scripts without spaces, a figure follows a letter at once."""
_FIGURE = re.compile(
    rf"(?P<sign>(?<![\w.,)\]])[-\u2212])?(?P<money>\$ ?)?"
    rf"(?:(?P<times>(?<!{_LETTER})[x\u00d7])|(?<!{_LETTER})(?<!\d\.)(?<![A-Za-z]-))(?P<number>{_NUMBER})"
    rf"(?:[ \u00a0\u202f-]?(?P<factor>k|m|bn|thousand|million|billion)(?![A-Za-z]))?"
    rf"(?:[ \u00a0\u202f-]{{0,2}}(?P<unit>{_UNIT})(?![A-Za-z0-9_]))?(?P<tail>[A-Za-z_][\w-]*)?"
    rf"|(?P<numeral>[{_NUMERALS}])[ \u00a0\u202f-]{{0,2}}(?P<numeral_unit>{_UNIT})(?![A-Za-z0-9_])"
    rf"|(?<!\w)(?P<word>{'|'.join(_WORDS)})[ -](?P<word_unit>{_UNIT})(?![A-Za-z0-9_])"
    rf"|(?<!\w)(?P<alone>{'|'.join(_ALONE)})(?!\w)",
    re.IGNORECASE,
)
_MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:tember)?|Oct(?:ober)?"
    "|Nov(?:ember)?|Dec(?:ember)?"
)
_EXEMPT = re.compile(
    r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})?)?"  # dates and times
    r"|\b\d{8}-\d{6}-\w+"  # sessions
    r"|\b\d{1,2}:\d{2}(?::\d{2})?\b"
    rf"|\b\d{{1,2}} (?:{_MONTHS})\b(?: \d{{4}}\b)?|\b(?:{_MONTHS}) \d{{1,2}}\b(?!\w)(?:,? \d{{4}}\b)?"
    r"|\bv?\d+\.\d+\.\d+(?:\.\d+)*\b"  # versions
    r"|\b\d+(?:st|nd|rd|th)\b"
    r"|(?m:^[ \t]*\d{1,2}[.)](?=[ \t]))",  # the numbers of a list
)
_THEN_UNIT = re.compile(rf"[ \u00a0\u202f-]{{1,2}}(?:{_UNIT})(?![A-Za-z0-9_])", re.IGNORECASE)
_KIND = [
    (re.compile(rf"(?:{unit})\Z", re.IGNORECASE), dimension, factor)
    for dimension, units in _UNITS.items()
    for unit, factor in units.items()
]


@dataclass(frozen=True)
class Figure:
    """A number that a text states.

    `readings` are its possible values, each with the half width of what rounds to it: `1,234` may be 1234 or 1.234.
    """

    text: str
    start: int
    end: int
    readings: tuple[tuple[float, float], ...]
    dimension: str | None
    """`time`, `rate`, ...; None for a bare number."""
    factor: float
    """From the figure's unit to the dimension's own."""
    negative: bool = False
    token: str = ""
    """Digits with the letters that are glued to them and are no unit: perhaps a name, such as an evidence id."""

    @property
    def is_small(self) -> bool:
        """Whether it is a whole number up to ten without a unit."""
        return self.dimension is None and self.readings[0][0] <= SMALL and self.text.isdecimal()


def figures(text: str, begin: int = 0) -> Iterator[Figure]:
    """Yield the figures of a text in order, small counts included; dates, versions and ordinals are none.

    Args:
        text: prose, or JSON.
        begin: where to begin; not within a figure or a date.
    """
    # What looks like a version or a time of day and has a unit behind it is neither: `0.0417.0 ms`, `12:30 ms`.
    exempt = [match.span() for match in _EXEMPT.finditer(text, begin) if not _THEN_UNIT.match(text, match.end())]
    for match in _FIGURE.finditer(text, begin):
        if any(start <= match.start() < end for start, end in exempt):
            continue
        yield _figure(match)


def complete_until(text: str, begin: int, end: int) -> int:
    """Return the last place up to `end` that lies within no figure and no date; `begin` is such a place itself."""
    spans = [match.span() for pattern in (_EXEMPT, _FIGURE) for match in pattern.finditer(text, begin)]
    for start, stop in sorted(spans, key=lambda span: span[1], reverse=True) * 2:  # `$2026-11-22`: they may overlap
        if start < end <= stop:
            end = start
    return end


def restates(claim: Figure, known: Figure) -> bool:
    """Return whether a claim says no more than what is known: the same value, or it rounded to fewer digits.

    A claim without a unit is about any value; a known number without one, a count or a setting, is never a time, a
    rate, a ratio or money.
    """
    if (
        claim.dimension is not None
        and known.dimension != claim.dimension
        and {claim.dimension, known.dimension}
        != {
            "count",
            None,
        }
    ):
        return False
    if claim.negative and not known.negative:
        return False
    value = known.readings[0][0]
    if claim.dimension is not None:
        value *= known.factor / claim.factor
    return any(_rounds_to(value, stated, half) for stated, half in claim.readings)


def _rounds_to(value: float, stated: float, half: float) -> bool:
    slack = 1e-9 * max(abs(value), abs(stated))
    return abs(value - stated) <= min(half, ROUNDING * abs(value)) + slack


def _figure(match: re.Match[str]) -> Figure:
    text = match.group()
    if match["alone"]:
        value = _ALONE[match["alone"].lower()]
        return Figure(text, *match.span(), ((value, 0.5),), "ratio", 1.0)
    if match["numeral"]:
        return Figure(
            text, *match.span(), ((unicodedata.numeric(match["numeral"]), 0.0),), *_kind(match["numeral_unit"])
        )
    if match["word"]:
        dimension, factor = _kind(match["word_unit"])
        return Figure(text, *match.span(), ((float(_WORDS[match["word"].lower()]), 0.5),), dimension, factor)
    many = _FACTORS[match["factor"].lower()] if match["factor"] else 1.0
    readings = tuple((value * many, half * many) for value, half in _readings(match["number"]))
    token = match["number"] + match["tail"] if match["tail"] else ""
    return Figure(text, *match.span(), readings, *_unit(match), bool(match["sign"]), token)


def _unit(match: re.Match[str]) -> tuple[str | None, float]:
    if match["money"]:
        return "money", 1.0
    if match["times"]:
        return "ratio", 1.0
    return (None, 1.0) if match["unit"] is None else _kind(match["unit"])


def _kind(unit: str) -> tuple[str, float]:
    for pattern, dimension, factor in _KIND:
        if pattern.match(unit):
            return dimension, factor
    raise AssertionError(f"{unit!r} is in the pattern and in no dimension")


def _readings(number: str) -> Iterator[tuple[float, float]]:
    """Yield what the digits may mean, the English reading first."""
    mantissa, _, exponent = number.lower().partition("e")
    scale = 10.0 ** int(exponent) if exponent else 1.0
    digits = re.sub(r"['\u2019\u00a0\u202f\u2009]", "", mantissa)
    for group, point in ((",", "."), (".", ",")):
        grouped = rf"\d{{1,3}}(?:{re.escape(group)}\d{{3}})+"
        if re.fullmatch(rf"(?:\d+|{grouped})(?:{re.escape(point)}\d+)?", digits):
            whole, _, decimals = digits.replace(group, "").partition(point)
            yield float(f"{whole}.{decimals or 0}") * scale, _half(whole, decimals) * scale
            if digits.isdecimal():
                return
    if re.fullmatch(r"\d+(?:[.,]\d+)*", digits) and len(re.findall(r"[.,]", digits)) > 1:
        yield float(re.sub(r"[.,]", "", digits)) * scale, 0.5 * scale  # grouped as in India, or no number at all


def _half(whole: str, decimals: str) -> float:
    """Return half of the last digit's worth: 0.05 for 12.4, 50 for 2,500."""
    if decimals:
        return 0.5 * 10.0 ** -len(decimals)
    stripped = whole.rstrip("0")
    return 0.5 * 10.0 ** (len(whole) - len(stripped)) if stripped else 0.5
