"""What the steps of a challenge measured stays as long as the session that it is about, and goes with it."""

from __future__ import annotations

import datetime as dt

import pytest
from recorded_support import INT8, settled_evidence, write_session
from tests_support import measured_trial

from tools.contracts import Evidence, Finding
from tools.evidence import EvidenceStore
from tools.retention import alone, delete, find_garbage

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def home(tmp_path):
    """A finished session; after its end a challenge measured one thing more, which its journal does not name."""
    folder = write_session(tmp_path, settled_evidence())
    body = measured_trial(INT8, 1.0, batches=(1, 16)).model_dump(exclude={"id", "session", "question"})
    more = Evidence.of(Finding(**body, session=folder.name, question="asked by a step"))
    EvidenceStore(tmp_path / "evidence.db").put(more)
    (folder / "challenge.json").write_text("{}")
    return tmp_path


def tidied(home, **arguments):
    """Tidy up; returns what is still known."""
    with alone(home):
        assert delete(find_garbage(home, NOW + dt.timedelta(days=40), **arguments)) is None
    return {row.question for row in EvidenceStore(home / "evidence.db").rows()}


def test_what_a_step_measured_stays_while_its_session_does(home):
    before = {row.question for row in EvidenceStore(home / "evidence.db").rows()}
    assert tidied(home) == before
    assert "asked by a step" in before


def test_what_a_step_measured_goes_with_its_session_and_blocks_nothing(home):
    assert tidied(home, older_than=dt.timedelta(days=30)) == set()
    assert list((home / "sessions").iterdir()) == []
