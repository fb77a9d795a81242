"""The errors that a person can cause, and so must be able to mend.

The command line prints them without a traceback and exits with 2. Anything else that escapes is a bug
of infertune, keeps its traceback, and exits with 1.
"""

from __future__ import annotations


class InfertuneError(Exception):
    """A mistake in the input or the surroundings: the message says what, where, and what to do."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        """Compose the message.

        Args:
            what: what is wrong, as a sentence.
            where: the file, field or object that it is about.
            fix: what the reader can do about it, as a sentence.
        """
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__("".join([f"{where}: " if where else "", what, f" {fix}" if fix else ""]))


class SpecError(InfertuneError):
    """The tuning spec, or a file that it names, cannot be used."""


class WorkloadError(InfertuneError):
    """The model or its data cannot be loaded, or do not fit together."""


class StorageError(InfertuneError):
    """Something could not be written to, or read from, the home directory."""


class TransformError(InfertuneError):
    """A transform cannot be applied to this artifact; recorded as the outcome of the trial."""


class UnavailableError(InfertuneError):
    """A part that this machine or this installation lacks was asked for."""


class TrafficError(InfertuneError):
    """What was read of the traffic cannot be relied on: nothing, too little, stale, or not from Prometheus at all."""


class ClusterError(InfertuneError):
    """The cluster refused, could not be reached, or is not as the plan left it."""


class FenceError(ClusterError):
    """A change that the rules do not allow: it is not made, whoever asks."""
