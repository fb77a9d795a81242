"""Where infertune keeps things.

Importing it costs nothing: a shell that completes a command asks, too.
"""

from __future__ import annotations

import os
from pathlib import Path


def home_directory(given: Path | str | None = None) -> Path:
    """Return where things are kept: the argument, `$INFERTUNE_HOME`, or `.infertune` in the working directory."""
    return Path(given or os.environ.get("INFERTUNE_HOME", ".infertune")).expanduser().resolve()
