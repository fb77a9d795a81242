"""How times, counts and other people's words are written in sentences."""

from __future__ import annotations

from datetime import UTC, datetime

from tools.units import DAY_S

_LONGEST = 300
"""Characters of somebody else's text that a sentence carries."""


def shortened(text: str) -> str:
    """Return another program's text as one line of at most 300 characters, without control characters."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split())).rstrip(".")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def moment(unix_s: float) -> str:
    """Return a time as `2024-01-02 20:31 UTC`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(seconds: float) -> str:
    """Return a length of time in the unit that suits it: `40 s`, `12 min`, `5 h`, `6.5 days`."""
    for unit_s, name in ((DAY_S, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{round(seconds / unit_s, 1):g} {name}"
    return f"{seconds:g} s"
