"""What each tool of the chat does: finds the session or plan, asks the parts of infertune that know, returns facts."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.chat import background, facts
from agent.chat.arguments import Changes, NewSession, Nothing, OfDecision, OfPlan, OfSession, Pair
from agent.chat.decisions import explained
from agent.chat.facts import Facts, data, identity
from agent.chat.fenced import moment
from agent.sessions import folders, is_running
from tools.cluster.text import shown
from tools.errors import InfertuneError
from tools.record import JOURNAL, RESULT, State, read_record
from tools.result import SessionResult
from tools.tracking.session import read_result

if TYPE_CHECKING:
    from tools.cluster.store import PlanStore
    from tools.contracts import ScalingPlan

_LATEST = 10
"""Sessions and plans that are listed."""
_JOURNAL_LINES = 6


def _nobody(_: str) -> bool:
    """Answer for a person who is not there."""
    return False


@dataclass(frozen=True)
class Surroundings:
    """What the tools work on. A person gave all of it."""

    home: Path
    session: str | None = None
    """The session that the chat is about; None for the latest."""
    target: str | None = None
    """A spec that may be optimized, beside the bundled workloads."""
    patience_s: float = background.PATIENCE_S
    """How long a session that is started is waited for."""
    confirm: Callable[[str], bool] = field(default=_nobody, repr=False)
    """Asks the person a question that code worded, and returns whether they said yes. A model can ask for a session
    to be started or stopped, and has no way to answer for the person; where there is nobody to ask, it is a no."""

    def require_word(self, question: str) -> None:
        """Ask the person for their word.

        Args:
            question: what is about to be done; of words and figures of ours, and ids that exist.

        Raises:
            InfertuneError: they did not give it.
        """
        if not self.confirm(question):
            raise InfertuneError(
                "only a person's own word does this, and it was not given. Nothing was done.",
                fix="Tell the person what you would do; do not ask again unless they want it.",
            )

    def folder(self, session: str | None) -> Path:
        """Return a session's folder: one of those that there are.

        Raises:
            InfertuneError: there is none of that id.
        """
        known = folders(self.home)
        wanted = session or self.session or (known[-1].name if known else None)
        found = next((folder for folder in known if folder.name == wanted), None)
        if found is None:
            listed = ", ".join(folder.name for folder in known[-5:]) or "none yet"
            raise InfertuneError(f"there is no session {wanted!r}.", fix=f"The latest are: {listed}.")
        return found

    def workloads(self) -> dict[str, str]:
        """Return what may be optimized, by name: a model names it, and never sees or gives a path."""
        from tools.workloads.bundled import BUNDLED

        own = {} if self.target is None or self.target in BUNDLED else {"yours": self.target}
        return {**own, **{name: name for name in BUNDLED}}

    def result(self, session: str | None) -> SessionResult:
        """Return a session's result.

        Raises:
            InfertuneError: it has none.
        """
        folder = self.folder(session)
        if not (folder / RESULT).exists():
            raise InfertuneError("has no result yet: watch it, or look at its decisions.", where=folder.name)
        return read_result(folder / RESULT)


def list_sessions(at: Surroundings, _: Nothing, __: str) -> Facts:
    """List the latest sessions."""
    found = folders(at.home)
    return {"sessions": [_listed(folder) for folder in found[-_LATEST:]], "in all": str(len(found))}


def list_workloads(at: Surroundings, _: Nothing, __: str) -> Facts:
    """List what can be optimized."""
    return {"workloads": list(at.workloads())}


def show_result(at: Surroundings, asked: OfSession, _: str) -> Facts:
    """Show a session's outcome."""
    result = at.result(asked.session)
    decisions = [identity(decision.id) for decision in result.decisions[-facts.MOST :]]
    return {"session": identity(result.session), **facts.result(result), "decisions": decisions}


def explain(at: Surroundings, asked: OfDecision, _: str) -> Facts:
    """Explain decisions."""
    from agent.questions import explain as ask

    folder = at.folder(asked.session)
    return {"session": identity(folder.name), **explained(ask(folder, asked.decision))}


def what_if(at: Surroundings, asked: Changes, _: str) -> Facts:
    """Answer another question from a session's evidence."""
    from agent.questions import what_if as ask
    from agent.recorded import evidence_of

    changes = asked.model_dump(exclude={"session"}, exclude_none=True)
    if not changes:
        raise InfertuneError(
            "nothing is changed.", fix=f"Give one of: {', '.join(sorted(Changes.model_fields.keys() - {'session'}))}."
        )
    folder = at.folder(asked.session)
    found = ask(folder, {name: v if isinstance(v, str) else f"{v:.12g}" for name, v in changes.items()})
    best = found.now.best
    known = evidence_of(read_record(folder), at.home)
    rests_on = (evidence.id for evidence in known if best is not None and evidence.recipe == best.definition)
    return {"session": identity(folder.name), **facts.wondered(found), "evidence": facts.evidence_ids(rests_on)}


def compare_sessions(at: Surroundings, asked: Pair, _: str) -> Facts:
    """Compare two sessions' outcomes."""
    done = [folder.name for folder in folders(at.home) if (folder / RESULT).exists()]
    if len(done) < 2 and (asked.first is None or asked.second is None):
        raise InfertuneError("there are not two sessions with a result.")
    first, second = asked.first or done[-2], asked.second or done[-1]
    if first == second:
        raise InfertuneError("that is one session: name two.", where=first)
    return facts.compared(at.result(first), at.result(second))


def describe_traffic(at: Surroundings, asked: OfSession, _: str) -> Facts:
    """Describe the traffic of a session."""
    from tools.inputs import trace_of
    from tools.report import format as fmt
    from tools.traffic.shape import describe

    folder = at.folder(asked.session)
    record = read_record(folder)
    spec = None if record.loaded is None else record.loaded.spec
    if spec is None or spec.traffic is None:
        raise InfertuneError("knows no traffic: its spec names none.", where=folder.name)
    trace = trace_of(spec.traffic, folder)
    shape = describe(trace)
    return {
        "session": identity(folder.name),
        "length": fmt.seconds(shape.length_s),
        "mean": fmt.rate(shape.mean_rps),
        "median": fmt.rate(trace.quantile_rps(0.5)),
        "95 % of the time at most": fmt.rate(trace.quantile_rps(0.95)),
        "peak": fmt.rate(trace.peak_rps),
        "shape": [facts.sentence(told) for told in shape.sentences],
        "decisions": [identity(d.id) for d in record.decisions if d.node == "scaling_recommendation"],
    }


def show_scaling(at: Surroundings, asked: OfSession, _: str) -> Facts:
    """Show what a session recommends for the autoscaler."""
    result = at.result(asked.session)
    if result.scaling is None:
        raise InfertuneError("recommends no scaling: it had no traffic, or nothing kept its promises.")
    decisions = [identity(d.id) for d in result.decisions if d.node == "scaling_recommendation"]
    plan = {} if result.plan is None else {"plan": result.plan.digest}
    return {"session": identity(result.session), **facts.scaling(result.scaling), "decisions": decisions, **plan}


def show_plans(at: Surroundings, asked: OfPlan, _: str) -> Facts:
    """Show the plans, or one of them in full."""
    from tools.cluster.plans import describe

    store = _store(at)
    plans = store.plans() if asked.plan is None else (_plan(store, asked.plan),)
    listed = [
        {
            "plan": plan.digest,
            "state": store.state(plan.digest),
            "session": identity(plan.session),
            "what it scales": data(f"{plan.target.namespace}/{plan.target.name}"),
            "why": facts.sentence(plan.why),
            "good until": moment(plan.expires),
            "evidence": facts.evidence_ids(plan.evidence),
        }
        for plan in plans[-_LATEST:]
    ]
    if len(plans) == 1:
        listed[0]["in full"] = facts.plan_lines(describe(plans[0]))
    return {"plans": listed}


def request_approval(at: Surroundings, asked: OfPlan, _: str) -> Facts:
    """Say by which commands a person approves a plan and has it carried out."""
    from tools.cluster.plans import has_expired

    store = _store(at)
    plan = _plan(store, asked.plan)
    state = store.state(plan.digest)
    if state not in ("proposed", "approved") or has_expired(plan, dt.datetime.now(dt.UTC)):
        why = "expired" if state in ("proposed", "approved") else state
        raise InfertuneError(f"waits for nobody: it is {why}.", where=f"plan {plan.digest}")
    home = f" --home {at.home}" if at.home != Path(".infertune").resolve() else ""
    approve = f"infertune plan approve --by YOUR-NAME {plan.digest}{home}"
    return {
        "plan": plan.digest,
        "session": identity(plan.session),
        "state": state,
        "good until": moment(plan.expires),
        "a person looks at it": f"infertune plan show {plan.digest}{home}",
        **({"a person approves it": approve} if state == "proposed" else {}),
        "a person has it carried out": f"infertune plan apply {plan.digest}{home}",
        "evidence": facts.evidence_ids(plan.evidence),
        "note": "Nothing in this chat can do this: the commands are for a person, in a terminal.",
    }


def start_session(at: Surroundings, asked: NewSession, call: str) -> Facts:
    """Start an optimization in the background, one at a time, once the person has said so."""
    workloads = at.workloads()
    if asked.workload not in workloads:
        raise InfertuneError("there is no such workload.", fix=f"There are: {', '.join(workloads)}.")
    known = background.is_known(at.home, call)
    if not known and background.is_running(at.home):
        raise InfertuneError("a session that a chat started still runs: two would disturb each other's measurements.")
    arguments = [workloads[asked.workload], "--time-budget", f"{asked.time_budget_s:g}"]
    most = ""
    if asked.max_trials is not None:
        arguments += ["--max-trials", str(asked.max_trials)]
        most = f", of at most {asked.max_trials} trials"
    if not known:  # else the person said so before the chat was cut off, and nothing is started now
        at.require_word(f"Start optimizing {asked.workload} on this machine, for {asked.time_budget_s:g} s{most}?")
    session, failure = background.start(at.home, call, arguments, patience_s=at.patience_s)
    if failure is not None:
        raise InfertuneError(f"it did not start: {failure}")
    if session is None:
        return {"started": True, "session": "not known yet: list_sessions will show it in a moment"}
    return {"started": True, "session": session}


def watch_session(at: Surroundings, asked: OfSession, _: str) -> Facts:
    """Tell how far a session is."""
    from tools.journal import Journal

    folder = at.folder(asked.session)
    record = read_record(folder)
    entries = Journal(folder / JOURNAL).read()
    return {
        "session": identity(folder.name),
        "state": "running" if is_running(folder) else record.state.value,
        "trials and checks so far": str(len(record.evidence)),
        "decisions so far": str(len(record.decisions)),
        "latest in the journal": [
            {
                "line": str(entry.seq),
                "at": moment(entry.at[:19]),
                "kind": entry.kind,
                **{
                    key: data(entry.payload[key])
                    for key in ("recipe", "node", "chosen", "reason", "verdict", "id")
                    if isinstance(entry.payload.get(key), str)
                },
            }
            for entry in entries[-_JOURNAL_LINES:]
        ],
        "decisions": [identity(decision.id) for decision in record.decisions[-facts.MOST :]],
    }


def stop_session(at: Surroundings, asked: OfSession, _: str) -> Facts:
    """Ask a session that a chat started to stop, once the person has said so; it keeps the best so far."""
    folder = at.folder(asked.session)
    if is_running(folder) or background.is_running(at.home):  # else there is nothing that could be stopped
        at.require_word(f"Stop the session {shown(folder.name)}? It keeps the best so far.")
    if not background.stop(at.home, folder.name):
        running = is_running(folder)
        what = "was not started by a chat: press Ctrl-C where it runs." if running else "does not run."
        raise InfertuneError(what, where=folder.name)
    note = "It keeps the best so far; watch it until it ends."
    return {"session": identity(folder.name), "asked to stop": True, "note": note}


def _listed(folder: Path) -> Facts:
    told: Facts = {"session": identity(folder.name)}
    with contextlib.suppress(InfertuneError):
        record = read_record(folder)
        told["state"] = "running" if record.state is State.UNFINISHED and is_running(folder) else record.state.value
        told["workload"] = data(Path(record.started.target).name)
        told["latest decisions"] = [identity(decision.id) for decision in record.decisions[-3:]]
    with contextlib.suppress(InfertuneError):
        result = read_result(folder / RESULT)
        told |= {"verdict": result.verdict.value, "summary": facts.summary(result)}
    return told


def _store(at: Surroundings) -> PlanStore:
    from tools.cluster.store import PLANS, PlanStore

    if not (at.home / PLANS).exists():
        raise InfertuneError(
            "there are no plans.", fix="A session makes one where its spec names a `cluster` and sets `apply: true`."
        )
    return PlanStore(at.home)


def _plan(store: PlanStore, digest: str | None) -> ScalingPlan:
    from agent.changes import find_plan

    return find_plan(store.home, digest)
