"""The trace of a session, from its journal and its evidence: who asked what, when, and what came of it. Pure.

The journal says when a piece of evidence was taken into use and when a decision was made. A node of the graph ends with
its decision and begins where the one before ended; what was measured in between is its own. How long a measurement took
is in the evidence. A session that was killed and resumed has one trace: the node that was cut off spans the pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tools.contracts import AdviceResult, Decision, Evidence, EvidenceKind, Exchange, Measured, WordingResult
from tools.journal import Entry
from tools.outcomes import describe, reason
from tools.report import format as fmt
from tools.result import SessionResult
from tools.tracking.facts import SESSION_TAG, VERDICT_TAG, WORKLOAD_TAG
from tools.tracking.naming import run_name
from tools.tracking.spans import Trace, TraceSpan, chat_attributes, nanoseconds, said

_NS_PER_S = 1_000_000_000


def session_trace(result: SessionResult, entries: Iterable[Entry], evidence: Mapping[str, Evidence]) -> Trace:
    """Return the trace of a session.

    Args:
        result: of the session.
        entries: its journal. Without it the nodes are there, but not when they ran, and not what they measured.
        evidence: by id. What is missing leaves a span without details.
    """
    timeline = _Timeline(result, evidence)
    entries = list(entries)
    standing = _standing(result, entries)
    for entry in entries:
        timeline.take(entry, standing.get(entry.seq))
    known = {decision.id for decision in standing.values()}
    for decision in result.decisions:
        if decision.id not in known:
            timeline.decided(decision, timeline.now_ns)
    timeline.finish()
    asked = {
        "workload": result.workload,
        "objective": result.objective.model_dump(mode="json", exclude_none=True),
        "metric": result.metric,
        "price_per_hour_usd": result.price_per_hour_usd,
        "hardware": fmt.clean(result.hardware.cpu),
    }
    best = {} if result.best is None else {"best": f"{result.best.recipe} at batch {result.best.batch_size}"}
    root = TraceSpan(
        name=run_name(result),
        kind="AGENT",
        start_ns=timeline.began_ns,
        end_ns=max([timeline.now_ns, *(span.end_ns for span in timeline.spans)]),
        inputs=asked,
        outputs={"verdict": result.verdict.value, "summary": result.summary, **best},
        attributes={SESSION_TAG: result.session},
        children=tuple(timeline.spans),
    )
    return Trace(
        root=root,
        request=f"{result.workload}: {fmt.objective(result.objective, result.metric)}",
        response=f"{result.verdict.value}: {result.summary}",
        tags={SESSION_TAG: result.session, VERDICT_TAG: result.verdict.value, WORKLOAD_TAG: result.workload},
    )


def _standing(result: SessionResult, entries: list[Entry]) -> dict[int, Decision]:
    """Return the decisions of the result by the number of the entry that made them for good.

    What was decided while a person was stopping the session was decided again when it went on.
    """
    last = {entry.payload.get("id"): entry.seq for entry in entries if entry.kind == "decision"}
    return {last[decision.id]: decision for decision in result.decisions if decision.id in last}


@dataclass
class _Timeline:
    """The spans below the root, in the making."""

    result: SessionResult
    evidence: Mapping[str, Evidence]
    spans: list[TraceSpan] = field(default_factory=list)
    _pending: list[TraceSpan] = field(default_factory=list)
    """What was measured since the last node ended."""

    def __post_init__(self) -> None:
        self.began_ns = self.now_ns = nanoseconds(self.result.created)
        """When the session began, and the end of the last thing that is known of it."""

    def take(self, entry: Entry, decision: Decision | None) -> None:
        """Go on by one line of the journal, and the decision that it made, if it stands."""
        at_ns = max(nanoseconds(entry.at), self.now_ns)
        match entry.kind:
            case "loaded":
                self._loaded(entry, at_ns)
            case "resumed" if not self._pending:
                self.now_ns = at_ns
            case "evidence":
                self._pending.append(self._used(entry, at_ns))
            case "decision" if decision is not None:
                self.decided(decision, at_ns)
            case "result":
                outputs = {"verdict": entry.payload.get("verdict"), "summary": entry.payload.get("summary")}
                self._end(TraceSpan("report", "CHAIN", self.now_ns, at_ns, outputs=outputs))

    def decided(self, decision: Decision, at_ns: int) -> None:
        """End the node that made a decision."""
        self._end(
            TraceSpan(
                name=decision.node,
                kind="CHAIN",
                start_ns=self.now_ns,
                end_ns=at_ns,
                inputs={"question": decision.question, "options": len(decision.options)},
                outputs={
                    "chosen": decision.chosen,
                    "reason": decision.reason,
                    "rule": decision.rule,
                    "by": decision.by,
                },
                attributes={"infertune.decision": decision.id, "infertune.evidence": list(decision.evidence)},
            )
        )

    def finish(self) -> None:
        """Keep what was measured after the last node that is known."""
        for span in self._pending:
            start_ns = max(span.start_ns, self.now_ns)
            self.spans.append(replace(span, start_ns=start_ns, end_ns=max(span.end_ns, start_ns)))
        self._pending = []

    def _end(self, node: TraceSpan) -> None:
        children = tuple(_within(child, node) for child in self._pending)
        self.spans.append(replace(node, children=children))
        self._pending = []
        self.now_ns = node.end_ns

    def _loaded(self, entry: Entry, at_ns: int) -> None:
        workload = entry.payload.get("workload") or {}
        told = {name: entry.payload.get(name) for name in ("loading_s", "training_s")}
        outputs = {"digest": workload.get("digest"), **told}
        self.spans.append(TraceSpan("load the workload", "TASK", self.now_ns, at_ns, outputs=outputs))
        self.now_ns = at_ns

    def _used(self, entry: Entry, at_ns: int) -> TraceSpan:
        """Return the span of a piece of evidence that was taken into use at some time."""
        identity, kind = str(entry.payload.get("id")), str(entry.payload.get("kind"))
        recipe = entry.payload.get("recipe")
        asks_a_model = kind == EvidenceKind.ADVICE
        span = TraceSpan(
            name=kind if asks_a_model else f"{kind.replace('_', ' ')}: {recipe}",
            kind="CHAT_MODEL" if asks_a_model else "TOOL",
            start_ns=at_ns,
            end_ns=at_ns,
            inputs={"kind": kind, "recipe": recipe},
            attributes={"infertune.evidence": identity},
        )
        found = self.evidence.get(identity)
        return span if found is None else self._measured(span, found)

    def _measured(self, span: TraceSpan, found: Evidence) -> TraceSpan:
        cached = found.session != self.result.session
        if not cached:
            # It says when it was made in whole seconds, and may have waited for others that were made at the same time.
            end_ns = min(span.end_ns, nanoseconds(found.created) + _NS_PER_S)
            span = replace(span, start_ns=end_ns - round(found.seconds * _NS_PER_S), end_ns=end_ns)
        steps = [step.transform for step in found.recipe.steps]
        span = replace(
            span,
            name=f"build: {steps[-1]}" if found.kind is EvidenceKind.BUILD and steps else span.name,
            inputs={**span.inputs, "steps": steps, "parameters": found.parameters},
            outputs={"outcome": found.outcome.outcome, "found": describe(found), "seconds": found.seconds},
            attributes={
                **span.attributes,
                "infertune.cached": cached,
                "infertune.seconds": found.seconds,
                "infertune.measured_by": found.session,
            },
            error=reason(found.outcome) or None,
        )
        match found.outcome:
            case Measured(result=AdviceResult(exchange=exchange) | WordingResult(exchange=exchange)):
                return _asked(span, exchange)
        return span


def _asked(span: TraceSpan, exchange: Exchange) -> TraceSpan:
    """Return the span of an answer of a language model, in the form that MLflow shows as a conversation."""
    usage = chat_attributes(
        model=exchange.model,
        tokens_in=exchange.tokens_in,
        tokens_out=exchange.tokens_out,
        estimated=exchange.estimated,
    )
    return replace(
        span,
        inputs={"model": exchange.model, "messages": [{"role": "user", "content": exchange.prompt}]},
        outputs=said({"content": exchange.answer}),
        attributes={**span.attributes, **usage, "infertune.tries": exchange.tries},
    )


def _within(child: TraceSpan, parent: TraceSpan) -> TraceSpan:
    """Return a span that does not reach out of the one above.

    What was prepared beside other things, or before the session was killed, may have begun before its node.
    """
    start_ns = min(max(child.start_ns, parent.start_ns), parent.end_ns)
    return replace(child, start_ns=start_ns, end_ns=min(max(child.end_ns, start_ns), parent.end_ns))
