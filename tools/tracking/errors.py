"""What goes wrong with the record, and never with the session."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from tools.errors import InfertuneError

_ACCOUNT = re.compile(r"(?<=://)(?:[^/\s]*:[^@\s]*|[^/@\s]+)@")
"""Name and password. A password may hold a slash: that is how SQLAlchemy reads a URL."""


class TrackingError(InfertuneError):
    """The record could not be written to MLflow; what it is a copy of is complete without it."""


@contextlib.contextmanager
def tracking_errors(tracking_uri: str, *, what: str = "the session") -> Iterator[None]:
    """Turn whatever MLflow, its database driver or its HTTP client raises into a `TrackingError`.

    Args:
        tracking_uri: of the store.
        what: is being recorded, for the message.
    """
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (
        MlflowException,
        sqlalchemy.exc.SQLAlchemyError,
        requests.RequestException,
        OSError,
        NotImplementedError,  # a store that knows no traces
    ) as error:
        said = " ".join(str(error).split())
        text = public_uri(said)
        cause = error if text == said else None  # a traceback in a log would show the account
        raise TrackingError(
            f"{what} could not be recorded in MLflow ({type(error).__name__}: {text[:300]}).",
            where=public_uri(tracking_uri),
            fix="Check MLFLOW_TRACKING_URI and the server; nothing else depends on it.",
        ) from cause


def public_uri(text: str) -> str:
    """Return a tracking URI, or a text that holds some, as it may be shown: without the account of a database."""
    return _ACCOUNT.sub("***@", text)
