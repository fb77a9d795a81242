"""`infertune sessions`: what was done in a home directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from tools.result import SessionResult


def list_sessions(home: Path) -> Iterator[str]:
    """Yield one line for each session, the oldest first."""
    folders = sorted(p for p in (home / "sessions").glob("*") if p.is_dir())
    if not folders:
        yield f"no sessions in {home} yet: infertune optimize digits-resnet50"
    for folder in folders:
        try:
            result = SessionResult.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            yield f"{folder.name}  (no result: it did not end)"
        except (OSError, ValidationError) as error:
            yield f"{folder.name}  (result.json cannot be read: {' '.join(str(error).split())[:80]})"
        else:
            yield f"{result.session}  {result.workload:<20} {result.verdict.value:<12} {result.summary}"
