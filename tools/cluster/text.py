"""Labels, annotations, names and messages are data from elsewhere: how they get into a sentence of ours."""

from __future__ import annotations

import re

NAME_LIMIT = 120
"""Characters of a label, an annotation or a name. Kubernetes allows 253 + 1 + 63 in a label's key."""

MESSAGE_LIMIT = 400
"""Characters of a server's message."""

INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What is printable to Python and to nobody else: fillers and variation selectors, by which text is smuggled."""


def shown(value: object, limit: int = NAME_LIMIT) -> str:
    r"""Return a text that cannot change the line, the terminal or the length of what it is put into.

    Whatever is not printable (control characters, line ends, bidirectional marks) or shows nothing (fillers, selectors
    of variants) is escaped as in Python: `\n`, `\x1b`, `\u202e`. What is too long loses its middle, since messages
    say the most at both ends.
    """
    # A bound on the work: an escape takes at most ten characters, and nobody sees what is beyond.
    text = str(value)
    if len(text) > 4 * limit:
        text = text[: 2 * limit] + text[-2 * limit :]
    text = "".join(
        c if c.isprintable() and not INVISIBLE.match(c) else c.encode("unicode_escape").decode() for c in text
    )
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
