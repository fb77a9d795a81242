"""Full INT8 first; then single layers in INT8, to rank them; then as few layers in float as keep the accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.sensitivity.choice import LayerCost, by_value, fewest, table, without_idle
from tools.transforms.sensitivity.judge import Array, Items, Judge, Outputs, read_items
from tools.worker import stage

RANKING_ITEMS = 50
"""Enough for the error of the outputs; the metric is asked again on all items before anything is decided."""
MOST_TRIES = 8
"""Full checks to quantize again what need not be in float."""


class LayeredModel(Protocol):
    """A calibrated model, any of whose layers can be in float."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names, in the order of execution."""
        ...

    def run_float(self, inputs: Mapping[str, Array]) -> Outputs:
        """Run the model as it was before it was quantized, on any number of items."""
        ...

    def run(self, in_float: frozenset[str], inputs: Mapping[str, Array]) -> Outputs:
        """Run it with these layers in float and the others in INT8, on any number of items."""
        ...

    def float_ms(self, inputs: Mapping[str, Array]) -> dict[str, float]:
        """Return how much longer one item takes with each layer in float, from profiles of both models."""
        ...

    def time_ms(self, variants: tuple[frozenset[str], ...], inputs: Mapping[str, Array]) -> tuple[float, ...]:
        """Return the median time of one batch, of variants with these layers in float, timed in turn."""
        ...

    def write(self, in_float: frozenset[str], root: Path) -> ArtifactRef:
        """Write the model with these layers in float as an artifact."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which layers stay in float, and what that was judged by.

    Attributes:
        kept: the layers in float.
        costs: of all layers; empty where full INT8 is accurate enough.
        items: how many items the metric was judged on.
        full_drop: of the metric in full INT8, in its unit.
        drop: with `kept` in float.
    """

    kept: frozenset[str]
    costs: tuple[LayerCost, ...]
    items: int
    full_drop: float
    drop: float


def mixed(model: LayeredModel, workload: WorkloadInfo, max_drop: float, root: Path) -> BuildResult:
    """Choose the layers that stay in float, and write the model.

    Args:
        model: calibrated.
        workload: whose calibration and training items judge.
        max_drop: how much worse its metric may be on them than the float model's, in the metric's unit.
        root: where artifacts live.

    Raises:
        TransformError: nothing is left to quantize, or the float model's outputs are not finite.
    """
    items = read_items(workload)
    choice = choose(model, workload, items, max_drop)
    if choice.kept == frozenset(model.layers):
        raise TransformError(f"no layer can be in INT8 if {workload.metric} may drop by at most {max_drop:g}.")
    facts: dict[str, JsonScalar] = {
        "layers_float": len(choice.kept),
        "layers_total": len(model.layers),
        "judged_items": choice.items,
        "judged_drop": choice.drop,
        "judged_drop_int8": choice.full_drop if math.isfinite(choice.full_drop) else None,
    }
    if choice.kept:
        stage("timing the choice")
        every = frozenset(model.layers)
        chosen_ms, int8_ms, float_ms = model.time_ms((choice.kept, frozenset(), every), items.inputs)
        facts |= {"mixed_ms": chosen_ms, "int8_ms": int8_ms, "float_ms": float_ms}
    stage("writing the model")
    return BuildResult(
        artifact=model.write(choice.kept, root),
        facts=facts,
        sensitivity=table(choice.costs, choice.kept),
        notes=(_told(choice, workload.metric, facts),),
    )


def choose(model: LayeredModel, workload: WorkloadInfo, items: Items, max_drop: float) -> Choice:
    """Choose the layers that stay in float.

    A layer's worth is the error that it makes alone, per millisecond that it takes longer in float. The metric, which
    is coarse, decides only how many are needed.

    Args:
        model: calibrated.
        workload: its metric counts.
        items: to judge by.
        max_drop: as for `mixed`.
    """
    stage("judging full INT8")
    judge = Judge(workload, items, model.run_float(items.inputs))
    drops = {frozenset[str](): judge.drop(model.run(frozenset(), items.inputs))}
    full_drop = drops[frozenset()]
    if full_drop <= max_drop:
        return Choice(frozenset(), (), items.n, full_drop, full_drop)
    costs = layer_costs(model, workload, items.some(RANKING_ITEMS))

    def acceptable(in_float: frozenset[str]) -> bool:
        stage(f"judging {len(in_float)} of {len(model.layers)} layers in float")
        if in_float not in drops:
            drops[in_float] = judge.drop(model.run(in_float, items.inputs))
        return drops[in_float] <= max_drop

    kept = fewest(by_value(costs), acceptable)
    kept = without_idle(kept, costs, acceptable, most_tries=MOST_TRIES)
    return Choice(kept, tuple(costs), items.n, full_drop, drops.get(kept, 0.0))


def layer_costs(model: LayeredModel, workload: WorkloadInfo, items: Items) -> list[LayerCost]:
    """Return what each layer costs, from a run with it alone in INT8 and from profiles of the float and INT8 models.

    Alone, because errors of different layers hide each other in a model that is wrong already.
    """
    judge = Judge(workload, items, model.run_float(items.inputs))
    stage("profiling the layers")
    float_ms = model.float_ms(items.inputs)
    every = frozenset(model.layers)
    costs = []
    for number, layer in enumerate(model.layers, 1):
        stage(f"layer {number} of {len(model.layers)} alone in INT8")
        outputs = model.run(every - {layer}, items.inputs)
        costs.append(LayerCost(layer, judge.error(outputs), judge.drop(outputs), float_ms[layer]))
    return costs


def _told(choice: Choice, metric: str, facts: Mapping[str, JsonScalar]) -> str:
    judged = f"on {choice.items} calibration and training items"
    if not choice.kept:
        return f"Full INT8 is accurate enough: {metric} drops by {choice.full_drop:.4g} {judged}."
    times = [float(facts[name] or 0.0) for name in ("mixed_ms", "int8_ms", "float_ms")]
    remark = "" if times[0] < times[2] else " That is no faster than float: changing to and fro costs time as well."
    return (
        f"{len(choice.kept)} of {facts['layers_total']} layers stay in float: {metric} drops by {choice.drop:.4g} "
        f"{judged}, by {choice.full_drop:.4g} in full INT8. A batch takes {times[0]:.3g} ms, {times[1]:.3g} ms in full "
        f"INT8, {times[2]:.3g} ms in float.{remark}"
    )
