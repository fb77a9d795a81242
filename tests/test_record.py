"""A session folded from its journal, its locks, and what a ledger writes."""

import multiprocessing
import os
import signal

import pytest
from tests_support import hardware, measured_trial, spec, workload

from tools.contracts import Availability, Decision, Option, Recipe
from tools.errors import StorageError
from tools.journal import Journal
from tools.ledger import Ledger
from tools.limits import BenchLimits
from tools.lock import BusyError, held
from tools.record import Loaded, Started, State, read_record

EAGER = Recipe(runtime="eager")


def started(**changes):
    return Started(
        session="s",
        target="digits-tiny",
        created="2026-11-22T00:00:00+00:00",
        tracking_uri="sqlite:///mlflow.db",
        fresh=False,
        time_budget_s=None,
        hardware=hardware(),
        versions={"torch": "2.15.0"},
        availability={"eager": Availability(name="eager", available=True)},
        policy="1",
        protocol="2",
    ).model_copy(update=changes)


def loaded(**changes):
    return Loaded(spec=spec(), workload=workload(), limits=BenchLimits(), loading_s=2.0, training_s=0.0).model_copy(
        update=changes
    )


def decision(number, chosen="eager fp32"):
    return Decision(
        id=f"d{number:02d}",
        node="planner",
        question="What next?",
        options=(Option(name=chosen),),
        chosen=chosen,
        rule="a rule",
        reason="a reason",
    )


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal.jsonl")
    made.append("started", started().model_dump(mode="json"))
    made.append("loaded", loaded().model_dump(mode="json"))
    return made


def decide(journal, *decisions):
    for each in decisions:
        journal.append("decision", each.model_dump(mode="json"))


def test_a_journal_folds_into_what_was_asked_used_and_decided(journal, tmp_path):
    journal.append("evidence", {"id": "a", "question": "first"})
    journal.append("evidence", {"id": "b", "question": "second"})
    decide(journal, decision(1), decision(2))
    record = read_record(tmp_path)
    assert (record.started, record.loaded) == (started(), loaded())
    assert record.evidence == ("a", "b")
    assert record.decisions == (decision(1), decision(2))
    assert record.state is State.UNFINISHED


def test_evidence_that_was_lost_and_found_again_takes_the_place_of_the_old(journal, tmp_path):
    for identity, question in (("a", "first"), ("b", "second"), ("c", "first")):
        journal.append("evidence", {"id": identity, "question": question})
    assert read_record(tmp_path).evidence == ("c", "b")


def test_how_a_session_ended(journal, tmp_path):
    journal.append("failed", {"reason": "no such file"})
    assert (read_record(tmp_path).state, read_record(tmp_path).failure) == (State.FAILED, "no such file")
    journal.append("resumed", {})
    assert read_record(tmp_path).state is State.UNFINISHED
    journal.append("result", {"verdict": "MET"})
    journal.append("recorded", {"run_id": "r"})
    journal.append("finished", {})
    record = read_record(tmp_path)
    assert (record.state, record.verdict, record.recorded) == (State.FINISHED, "MET", {"run_id": "r"})


def test_what_was_decided_while_a_person_was_stopping_it_does_not_stand_once_it_goes_on(journal, tmp_path):
    decide(journal, decision(1))
    journal.append("interrupted", {"decisions": 1})
    decide(journal, decision(2, "provisional"))
    journal.append("result", {"verdict": "INTERRUPTED"})
    journal.append("finished", {})
    record = read_record(tmp_path)
    assert (record.state, record.undecided_from) == (State.INTERRUPTED, 1)
    journal.append("resumed", {})
    assert read_record(tmp_path).decisions == (decision(1),)
    assert read_record(tmp_path).verdict is None
    decide(journal, decision(2, "for good"))
    assert read_record(tmp_path).decisions == (decision(1), decision(2, "for good"))


@pytest.mark.parametrize("name", ["traffic.csv", "with space.csv"])
def test_copied_inputs_are_found_wherever_the_session_lies(tmp_path, name):
    made = Journal(tmp_path / "elsewhere" / "journal.jsonl")
    made.append("started", started().model_dump(mode="json"))
    payload = loaded().model_dump(mode="json")
    payload["spec"]["traffic"] = {"trace": f"inputs/{name}", "rate_rps": None}
    made.append("loaded", payload)
    record = read_record(tmp_path / "elsewhere")
    assert record.loaded.spec.traffic.trace == str(tmp_path / "elsewhere" / "inputs" / name)


def test_a_folder_without_a_beginning_is_no_session(tmp_path):
    with pytest.raises(StorageError, match="has no beginning"):
        read_record(tmp_path)


def test_a_journal_of_another_version_says_so(tmp_path):
    Journal(tmp_path / "journal.jsonl").append("started", {"session": "s", "spec": {}})
    with pytest.raises(StorageError, match="another version of infertune"):
        read_record(tmp_path)


# --- the ledger ----------------------------------------------------------------------------------------------


def kinds(journal):
    return [entry.kind for entry in journal.read()[2:]]


def test_a_ledger_writes_nothing_twice(journal):
    trial = measured_trial(EAGER, 10)
    first = Ledger(journal)
    first.use(trial)
    first.decide(decision(1))
    again = Ledger(journal, evidence=[trial.id], decisions=[decision(1)])
    again.use(trial)
    again.decide(decision(1))
    assert kinds(journal) == ["evidence", "decision"]
    assert (again.evidence, again.decisions) == ([trial], [decision(1)])


def test_a_decision_that_came_out_otherwise_is_written_and_stands(journal, tmp_path):
    decide(journal, decision(1))
    Ledger(journal, decisions=[decision(1)]).decide(decision(1, "other"))
    assert kinds(journal) == ["decision", "decision"]
    assert read_record(tmp_path).decisions == (decision(1, "other"),)


def test_an_interruption_is_noted_once_with_what_was_decided_before(journal):
    ledger = Ledger(journal)
    ledger.decide(decision(1))
    ledger.interrupt()
    ledger.interrupt()
    assert kinds(journal) == ["decision", "interrupted"]
    assert journal.read()[-1].payload == {"decisions": 1}


# --- locks ---------------------------------------------------------------------------------------------------


def _hold(path, ready):
    with held(path, busy="busy"):
        ready.set()
        signal.pause()


def test_a_lock_is_refused_while_held_and_free_once_its_holder_was_killed(tmp_path):
    path = tmp_path / ".lock"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(path, ready))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(BusyError, match="somebody works here"), held(path, busy="somebody works here."):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    with held(path, busy="never"):
        pass


def test_many_may_share_a_lock_that_nobody_gets_alone_meanwhile(tmp_path):
    path = tmp_path / ".lock"
    shared = [held(path, busy="", shared=True) for _ in range(2)]
    with shared[0], shared[1], pytest.raises(BusyError), held(path, busy="no"):
        pass
    with held(path, busy="never"):
        pass
