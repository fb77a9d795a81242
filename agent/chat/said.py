"""Reads what a model says to the person out of a JSON answer while it is still coming."""

from __future__ import annotations

import json
import re

from agent.chat.model import storable

_BEGIN = re.compile(r'\s*"say"\s*:\s*"')
_WHOLE = re.compile(r'(?:[^"\\]|\\(?:[^u]|u[0-9a-fA-F]{4}))*')
"""Characters of a JSON string up to its end, or to an escape that is not complete."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_FIRST_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


class Said:
    r"""The text of `say` in `{"say": "..."}`, piece by piece, with its escapes resolved.

    Only where `say` is the first name of the first object, as the model was told. Elsewhere nothing is read, and the
    text is shown once the answer is complete.
    """

    def __init__(self) -> None:
        self.text = ""
        """What was read so far."""
        self._came = ""
        self._place: int | None = None
        """Where the unread part of the string begins; None before the string."""

    @property
    def begun(self) -> bool:
        """Whether the string was found."""
        return self._place is not None

    @property
    def ended(self) -> bool:
        """Whether the string's end was found, whatever follows."""
        return self._place is not None and self._came.startswith('"', self._place)

    def feed(self, piece: str) -> str:
        """Take the next piece of the answer, and return what it adds to the text."""
        self._came += piece
        if self._place is None:
            brace = self._came.find("{")
            begin = _BEGIN.match(self._came, brace + 1) if brace >= 0 else None
            if begin is None:
                return ""
            self._place = begin.end()
        whole = _WHOLE.match(self._came, self._place)
        assert whole is not None, "it matches nothing, too"
        raw = whole.group()
        half = _FIRST_HALF.search(raw)
        if half is not None:
            raw = raw[: half.start()]  # its other half may still come
        self._place += len(raw)
        added = _resolved(raw)
        self.text += added
        return added


def _resolved(raw: str) -> str:
    # An escape that JSON does not know, such as `\%`, means its character.
    known = _ESCAPE.sub(lambda found: found[0] if found[1] in '"\\/bfnrtu' else found[1], raw)
    return storable(json.loads(f'"{known}"', strict=False))
