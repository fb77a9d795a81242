"""Read a finished session back."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tools.errors import StorageError
from tools.result import SessionResult


def read_result(file: Path) -> SessionResult:
    """Read `result.json`.

    Raises:
        StorageError: it is not there, or is no result of this version.
    """
    try:
        return SessionResult.model_validate_json(file.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror or error}).", where=str(file)) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise StorageError(f"is no result of a session ({field}: {first['msg']}).", where=str(file)) from None
