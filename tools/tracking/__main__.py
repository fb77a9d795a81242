"""`python -m tools.tracking SESSION_DIR EXAMPLE.npz`: record a session and print where, as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tools.errors import InfertuneError
from tools.tracking import record_task


def main(arguments: Sequence[str] | None = None) -> int:
    """Record one session; 0 when it is recorded, 2 when it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tracking", description="Mirror a finished session to MLflow."
    )
    parser.add_argument("session_dir", help="the session's folder, with its result.json")
    parser.add_argument("example", help=".npz file with one batch of inputs, for the model's signature")
    parser.add_argument("--tracking-uri", help="default: MLFLOW_TRACKING_URI, else the home directory's own store")
    given = parser.parse_args(arguments)
    try:
        reference = record_task(session_dir=given.session_dir, example=given.example, tracking_uri=given.tracking_uri)
    except InfertuneError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(reference) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
