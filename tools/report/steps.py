"""The rows about steps: what each of them did, and how sensitive the layers were."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tools.contracts import JsonScalar
from tools.report import format as fmt
from tools.report.rows import Cell
from tools.result import BuildSummary, SessionResult

_LAYERS = 15
"""The most sensitive layers that are shown; those that stay in float are shown all."""
_WORTH_TELLING = 0.01
"""Of the parameters: some are zero in any model."""


@dataclass(frozen=True)
class StepRow:
    """What one transform did."""

    name: str
    after: str
    """The steps before it."""
    outcome: str
    reason: str
    """Why it made nothing; empty if it did."""
    seconds: str
    size: str
    parameters: Cell
    work: str
    operators: str
    agreement: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LayerRow:
    """One layer of a sensitivity table."""

    layer: str
    drop: str
    float_ms: str
    kept_float: bool


@dataclass(frozen=True)
class LayerTable:
    """How sensitive the layers of one model are."""

    name: str
    rows: tuple[LayerRow, ...]
    total: int


def steps(result: SessionResult) -> tuple[StepRow, ...]:
    """Return the steps that tell something beyond how long they took: facts, notes, or why they failed."""
    return tuple(_step(build) for build in result.builds if _tells(build))


def silent_steps(result: SessionResult) -> str:
    """Return a sentence about all other steps; empty if there are none."""
    silent = [build for build in result.builds if not _tells(build)]
    if not silent:
        return ""
    names = ", ".join(sorted({fmt.clean(build.transform) for build in silent}))
    took = fmt.seconds(sum(build.seconds for build in silent))
    number = "1 more step tells" if len(silent) == 1 else f"{len(silent)} more steps tell"
    return f"{number} nothing but the time taken: {names} ({took} in all)."


def sensitivities(result: SessionResult) -> tuple[LayerTable, ...]:
    """Return the sensitivity tables of all steps that made one, the most sensitive layers and those left in float."""
    return tuple(
        LayerTable(
            ", ".join(build.steps),
            tuple(
                LayerRow(layer.layer, fmt.drop(layer.drop, result.metric), fmt.ms(layer.float_ms), layer.kept_float)
                for place, layer in enumerate(build.sensitivity)
                if place < _LAYERS or layer.kept_float
            ),
            len(build.sensitivity),
        )
        for build in result.builds
        if build.sensitivity
    )


def _tells(build: BuildSummary) -> bool:
    return build.outcome != "measured" or bool(build.facts or build.notes or build.sensitivity)


def _step(build: BuildSummary) -> StepRow:
    facts = build.facts
    return StepRow(
        name=build.steps[-1],
        after=", ".join(build.steps[:-1]),
        outcome=build.outcome.replace("_", " "),
        reason=fmt.clean(build.reason or ""),
        seconds=fmt.seconds(build.seconds),
        size=fmt.quantity("size_mb", build.size_mb),
        parameters=Cell(_change(facts, "parameters_before", "parameters", fmt.count), _zeros(facts)),
        work=_change(facts, "flops_before", "flops", lambda flops: fmt.number(flops / 1e6)),
        operators=_change(facts, "nodes_before", "nodes_after", fmt.count),
        agreement=fmt.quantity("agreement", facts.get("agreement")),
        notes=build.notes,
    )


def _change(facts: Mapping[str, JsonScalar], before: str, after: str, show: Callable[[float], str]) -> str:
    """Return `before -> after` with an arrow, or what is known of the two."""
    first, last = (_number(facts.get(name)) for name in (before, after))
    if last is None:
        return fmt.NOTHING
    return show(last) if first is None or first == last else f"{show(first)} \N{RIGHTWARDS ARROW} {show(last)}"


def _zeros(facts: Mapping[str, JsonScalar]) -> str:
    """Return the share of zeros, where there are enough that somebody meant them."""
    share = _number(facts.get("sparsity"))
    return "" if share is None or share < _WORTH_TELLING else f"{fmt.percent(share)} zeros"


def _number(value: JsonScalar) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
