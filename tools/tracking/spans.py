"""A trace as a tree of spans whose times are known, and writing it to MLflow under a name that is known beforehand.

MLflow's own way is to watch a program while it runs. Here everything has happened already, so the tree is made whole
and handed over at once: in one transaction where the store is a database. The same trace written again replaces itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

SpanKind: TypeAlias = Literal["AGENT", "CHAIN", "TOOL", "TASK", "CHAT_MODEL"]
"""Those of `mlflow.entities.SpanType` that are used: MLflow draws each with its own sign."""
_PREVIEW = 1000
"""Characters of what went in and came out that MLflow's list of traces has room for."""
_NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class TraceSpan:
    """Something that took time, with what it consisted of."""

    name: str
    kind: SpanKind
    start_ns: int
    """Since 1970, UTC."""
    end_ns: int
    inputs: Any = None
    """JSON-ready, like `outputs` and the values of `attributes`."""
    outputs: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    """Why it came to nothing, in a sentence."""
    children: tuple[TraceSpan, ...] = ()


@dataclass(frozen=True)
class Trace:
    """A tree of spans, and what MLflow's list shows of it."""

    root: TraceSpan
    request: str
    """What was asked, for the list."""
    response: str
    """What came of it, for the list."""
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def nanoseconds(iso: str) -> int:
    """Return a time (ISO 8601) as nanoseconds since 1970; it is known to the microsecond."""
    return round(datetime.fromisoformat(iso).timestamp() * 1e6) * 1000


def trace_id(name: str) -> str:
    """Return the id in MLflow of the trace that is called so.

    Args:
        name: 32 hexadecimal digits, such as the id of a run.
    """
    return f"tr-{name}"


def write_trace(tracking_uri: str, experiment: str, name: str, trace: Trace) -> str:
    """Write a trace, in place of what there may be under its name.

    Args:
        tracking_uri: of the store.
        experiment: id.
        name: 32 hexadecimal digits that are this trace's alone.
        trace: what to write.

    Returns:
        Its id.

    Raises:
        MlflowException: the store cannot be reached, or refuses.
        NotImplementedError: it keeps no spans: a server before MLflow 3.4, or a folder of files.
    """
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.client import TracingClient
    from mlflow.tracing.constant import TRACE_SCHEMA_VERSION, TRACE_SCHEMA_VERSION_KEY, TraceTagKey

    client = TracingClient(tracking_uri)
    identity = trace_id(name)
    root = trace.root
    client.delete_traces(experiment_id=experiment, trace_ids=[identity])
    client.log_spans(experiment, list(_spans(name, root, parent=None, place="0")))
    client.start_trace(
        TraceInfo(
            trace_id=identity,
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=root.start_ns // _NS_PER_MS,
            execution_duration=(root.end_ns - root.start_ns) // _NS_PER_MS,
            state=TraceState.ERROR if root.error is not None else TraceState.OK,
            request_preview=trace.request[:_PREVIEW],
            response_preview=trace.response[:_PREVIEW],
            trace_metadata={TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION), **trace.metadata},
            tags={TraceTagKey.TRACE_NAME: root.name, **trace.tags},
        )
    )
    return identity


def _spans(name: str, span: TraceSpan, *, parent: Any, place: str) -> Iterator[Any]:
    """Yield MLflow's spans of a tree, parents first.

    Args:
        name: of the trace.
        span: the tree.
        parent: OpenTelemetry's context of the span above.
        place: of this one in the tree: `0.3.1` is the second child of the fourth child of the root.
    """
    from mlflow.entities import Span
    from mlflow.tracing.constant import SpanAttributeKey
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    context = SpanContext(
        int(name, 16), _span_id(name, place), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    attributes = {
        SpanAttributeKey.REQUEST_ID: trace_id(name),
        SpanAttributeKey.SPAN_TYPE: span.kind,
        SpanAttributeKey.INPUTS: span.inputs,
        SpanAttributeKey.OUTPUTS: span.outputs,
        **span.attributes,
    }
    yield Span(
        ReadableSpan(
            name=span.name,
            context=context,
            parent=parent,
            resource=Resource.get_empty(),  # another one names this machine and this process, which did not run it
            attributes={key: json.dumps(value) for key, value in attributes.items() if value is not None},
            status=Status(StatusCode.OK) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )
    )
    for number, child in enumerate(span.children):
        yield from _spans(name, child, parent=context, place=f"{place}.{number}")


def _span_id(name: str, place: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{name} {place}".encode()).digest()[:8], "big")


def chat_attributes(*, model: str | None, tokens_in: int, tokens_out: int, estimated: bool) -> dict[str, Any]:
    """Return the attributes that MLflow's pages read the model and the tokens of a call from.

    Args:
        model: its name; None where nobody wrote it down.
        tokens_in: that were sent.
        tokens_out: that came back.
        estimated: whether they were not counted by the endpoint.
    """
    return {
        "mlflow.llm.model": model,
        "mlflow.message.format": "openai",
        "mlflow.chat.tokenUsage": {
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
        "infertune.tokens_estimated": estimated,
    }


def said(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model answered as the span's output: in the form of OpenAI's chat completions."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", **message}}]}
