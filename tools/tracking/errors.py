"""What goes wrong with the record, and never with the session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tools.errors import InfertuneError


class TrackingError(InfertuneError):
    """The record could not be written to MLflow; the session's own files are complete without it."""


@contextlib.contextmanager
def tracking_errors(tracking_uri: str) -> Iterator[None]:
    """Turn whatever MLflow, its database driver or its HTTP client raises into a `TrackingError`."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, requests.RequestException, OSError) as error:
        text = " ".join(str(error).split())
        raise TrackingError(
            f"the session could not be recorded in MLflow ({type(error).__name__}: {text[:300]}).",
            where=tracking_uri,
            fix="Check MLFLOW_TRACKING_URI and the server; nothing else of the session depends on it.",
        ) from error
