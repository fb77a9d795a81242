"""What a finished session says of its service: traffic, how a replica serves, promises, and autoscaler settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.recorded import loaded_of, view_of
from agent.sessions import find
from tools.contracts import HpaSpec, ServiceCurve
from tools.errors import SpecError
from tools.inputs import hpa_in_use, trace_of
from tools.record import RESULT, SessionRecord, read_record
from tools.result import ScalingSummary
from tools.scaling.manifest import read_hpa
from tools.scaling.replica import service_curve
from tools.scaling.settings import Setting, describe, owned
from tools.selection import final_choice
from tools.spec import TuningSpec
from tools.tracking.session import read_result
from tools.traffic import Trace


@dataclass(frozen=True)
class SessionInputs:
    """A session, asked for one thing at a time: not every session has everything."""

    home: Path
    record: SessionRecord
    spec: TuningSpec

    @classmethod
    def of(cls, home: Path, session: str) -> SessionInputs:
        """Find a session by its id, or the beginning of it.

        Raises:
            InfertuneError: there is none, or it was never loaded.
        """
        record = read_record(find(home, session))
        return cls(home, record, loaded_of(record).spec)

    def trace(self) -> Trace:
        """Return the traffic that it rests on.

        Raises:
            SpecError: it had none.
        """
        if self.spec.traffic is None:
            raise SpecError("has no traffic.", where=self._where, fix="Give a trace, or a session that had one.")
        return trace_of(self.spec.traffic, self.record.folder)

    def curve(self) -> ServiceCurve:
        """Return how a replica of what it chose serves.

        Raises:
            SpecError: it chose nothing.
            StorageError: its evidence is gone.
        """
        best, why = final_choice(view_of(self.record, self.home))
        if best is None:
            raise SpecError(f"chose no configuration: {why}.", where=self._where, fix="Use another session's curve.")
        threads = self.spec.hardware.threads or self.record.started.hardware.cores
        return service_curve(
            list(best.tried.points.values()),
            name=best.name,
            max_batch=best.point.batch_size,
            cores=self.spec.scaling.cores or threads,
            evidence=best.tried.evidence,
        )

    def settings(self) -> tuple[Setting, ...]:
        """Return the autoscaler in use, if there is one that can be played, and the one that it recommends, if any."""
        return tuple(self._settings())

    @property
    def _where(self) -> str:
        return f"session {self.record.session}"

    def _settings(self) -> Iterator[Setting]:
        scaling = read_result(self.record.folder / RESULT).scaling
        found = None if scaling is None else scaling.recommendation
        hpa = hpa_in_use(self.spec, self.record.folder)
        if hpa is not None and (found is None or found.unplayable is None):
            yield named("today's HPA", hpa["spec"], is_today=True)
        recommended = None if scaling is None else _recommended(scaling)
        if recommended is not None:
            yield named("recommended", recommended)


def named(name: str, spec: HpaSpec, *, is_today: bool = False) -> Setting:
    """Return a setting whose name says what it follows.

    Raises:
        SpecError: it is no HPA that a server would take.
    """
    try:
        return Setting(f"{name}: {describe(spec)}", owned(spec), is_today=is_today)
    except SpecError as error:
        raise SpecError(error.what, where=": ".join(filter(None, (name, error.where))), fix=error.fix) from None


def _recommended(scaling: ScalingSummary) -> HpaSpec | None:
    """Return the setting that the twin chose, or came closest with; without the twin, that of the file."""
    found = scaling.recommendation
    if found is not None:
        if found.chosen is not None:
            return None if found.chosen.is_today else found.chosen.spec
        if found.closest is not None and not found.closest.option.is_today:
            return found.closest.option.spec
        return None
    return None if scaling.hpa_yaml is None else owned(read_hpa(Path(scaling.hpa_yaml)).manifest["spec"])
