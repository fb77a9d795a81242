"""Figures must come from tools: what a model states is held against what tools returned in this conversation. Pure.

The check is code, and knows nothing of the model. A figure that no tool returned is never shown unmarked: the first
answer that holds one stops there and is asked again, the second is shown with such figures struck out. What a person
typed is no source either: a question such as "is it 5x faster?" proves nothing.

It cannot read: a figure that a tool did return may still be said of the wrong thing.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from agent.chat.figures import Figure, complete_until, figures, restates

NOTE = "(not from a tool)"
"""Stands behind each figure that no tool returned."""
HOLD = 40
"""Characters that a stream keeps back: a unit may still follow. Longer than any unit or date."""
_DATA = re.compile(r"<data>.*?</data>", re.DOTALL)
_BRACKET = re.compile(r"\s?\[([^\[\]]*)\]")
_SECONDS = re.compile(r"seconds['\"]?: ?['\"]?\Z", re.IGNORECASE)
_WORD = re.compile(r"[\w-]+")
_RAW = "as it stands"
_NAME_CHARACTERS = 6
"""As many characters of an id name it."""


class Known:
    """The figures that tools returned, and the ids and names among their words.

    Args:
        texts: what tools returned. What stands in `<data>` is other people's text, and vouches for nothing.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._seen: set[tuple[Any, ...]] = set()
        self._by_value: dict[str | None, list[tuple[float, int, Figure]]] = {}
        """By dimension in its own unit, and under `_RAW` all of them as they stand, ascending."""
        self._words: list[str] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Take in what another tool returned."""
        own = _DATA.sub(" ", text)
        for figure in _with_units(own):
            value = figure.readings[0][0]
            same = (value, figure.dimension, figure.factor, figure.negative)
            if figure.token or same in self._seen:
                continue
            self._seen.add(same)
            for key, in_unit in ((figure.dimension, value * figure.factor), (_RAW, value)):
                self._by_value.setdefault(key, []).append((in_unit, len(self._seen), figure))
        for values in self._by_value.values():
            values.sort()
        self._words = sorted({*self._words, *_WORD.findall(own)})

    def covers(self, figure: Figure) -> bool:
        """Return whether a figure may be stated: it is small, a name that a tool used, or restates a tool's figure."""
        if figure.is_small and not figure.token:
            return True
        if figure.token and self._names(figure.token):
            return True
        return any(restates(figure, known) for known in self._near(figure))

    def _near(self, claim: Figure) -> Iterator[Figure]:
        """Yield what a claim can restate: the figures of its dimension that round to it."""
        keys: tuple[str | None, ...] = (claim.dimension,)
        if claim.dimension is None:
            keys = (_RAW,)
        elif claim.dimension == "count":
            keys = ("count", None)
        for key in keys:
            values = self._by_value.get(key, [])
            for stated, half in claim.readings:
                slack = half + 1e-6 * abs(stated)
                place = bisect.bisect_left(values, ((stated - slack) * claim.factor,))
                for value, _, known in itertools.islice(values, place, None):
                    if value > (stated + slack) * claim.factor:
                        break
                    yield known

    def _names(self, token: str) -> bool:
        place = bisect.bisect_left(self._words, token)
        if place == len(self._words):
            return False
        found = self._words[place]
        return found == token or (len(token) >= _NAME_CHARACTERS and found.startswith(token))


def unverified(text: str, known: Known) -> list[Figure]:
    """Return the figures of a text that no tool returned, in order."""
    return [figure for figure in figures(text) if not known.covers(figure)]


def marked(text: str, known: Known) -> str:
    """Return a text with each figure that no tool returned struck out, and a note behind it."""
    return _marked(text, unverified(text, known), 0, len(text))


class Stream:
    """Passes an answer on as it comes, but no figure before it is complete and checked.

    Args:
        known: what tools returned.
        stop: whether to withhold everything from the first unverified figure on, instead of marking it.
    """

    def __init__(self, known: Known, *, stop: bool) -> None:
        self.known = known
        """What tools returned."""
        self._stop = stop
        self._shown = 0
        self.text = ""
        """All that came, as it came."""
        self.withheld = False
        """Whether an unverified figure stopped it."""

    def feed(self, text: str) -> str:
        """Take the next piece, and return what can be shown by now."""
        self.text += text
        return self._release(self._settled())

    def end(self) -> str:
        """Return the rest, once nothing more comes."""
        return self._release(len(self.text))

    def _settled(self) -> int:
        """Return where the part ends that nothing to come can change."""
        return complete_until(self.text, self._shown, max(len(self.text) - HOLD, self._shown))

    def _release(self, end: int) -> str:
        if self.withheld or end <= self._shown:
            return ""
        bad = [f for f in figures(self.text, self._shown) if f.start < end and not self.known.covers(f)]
        if bad and self._stop:
            self.withheld = True
            end, bad = bad[0].start, []
        start, self._shown = self._shown, end
        return _marked(self.text, bad, start, end)


def _marked(text: str, bad: Iterable[Figure], start: int, end: int) -> str:
    parts = []
    for figure in bad:
        parts += [text[start : figure.start], f"~~{figure.text}~~ {NOTE}"]
        start = figure.end
    return "".join([*parts, text[start:end]])


def _with_units(text: str) -> Iterable[Figure]:
    """Yield a tool's figures: the ends of `2.00 ms [1.98, 2.02]` are in ms, and `periodSeconds: 60` is in seconds."""
    unit: Figure | None = None
    bracket_end = -1
    for figure in figures(text):
        if figure.dimension is None and unit is not None and figure.end <= bracket_end:
            yield _in_unit(figure, unit.dimension, unit.factor)
        elif figure.dimension is None and _SECONDS.search(text, max(figure.start - 20, 0), figure.start):
            yield _in_unit(figure, "time", 1e3)
        else:
            yield figure
        if figure.end > bracket_end:
            bracket = _BRACKET.match(text, figure.end)
            unit, bracket_end = (figure, bracket.end()) if bracket else (None, -1)


def _in_unit(figure: Figure, dimension: str | None, factor: float) -> Figure:
    return Figure(figure.text, figure.start, figure.end, figure.readings, dimension, factor, figure.negative)
