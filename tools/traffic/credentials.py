"""What a Prometheus behind a lock is opened with. A secret leaves this module only for the request's header."""

from __future__ import annotations

import os
from pathlib import Path

from tools.errors import SpecError
from tools.spec import PrometheusSpec

_WHERE = "traffic.prometheus"


def bearer_token(source: PrometheusSpec) -> str | None:
    """Return the token as it is now: a file is read each time, for Kubernetes replaces such tokens every hour.

    Raises:
        SpecError: the file or the variable is missing or empty, or what is in it is no token. It is never shown.
    """
    if source.token_env is not None:
        token, where = os.environ.get(source.token_env, "").strip(), f"environment variable {source.token_env}"
        if not token:
            raise SpecError(
                "is not set, or empty.", where=where, fix=f"`{_WHERE}.token_env` names it: export it with the token."
            )
    elif source.token_file is not None:
        token, where = _read(Path(source.token_file), "token_file").strip(), source.token_file
        if not token:
            raise SpecError("is empty.", where=where, fix=f"`{_WHERE}.token_file` must hold a bearer token.")
    else:
        return None
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SpecError(
            "holds no bearer token: it has spaces, line breaks or characters that a header cannot carry.",
            where=where,
            fix="Give the bare token on one line, without `Bearer`.",
        )
    return token


def client_certificate(source: PrometheusSpec) -> tuple[str, str] | None:
    """Return the files of the client certificate and its key; the trusted certificates are looked at as well.

    Raises:
        SpecError: a file cannot be read.
    """
    for field in ("ca_file", "cert_file", "key_file"):
        file = getattr(source, field)
        if file is not None:
            _read(Path(file), field)
    if source.cert_file is None or source.key_file is None:
        return None
    return source.cert_file, source.key_file


def _read(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # An undecodable file's error would quote its bytes.
        why = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SpecError(f"cannot be read ({why}).", where=str(path), fix=f"`{_WHERE}.{field}` names it.") from None
