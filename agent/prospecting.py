"""From a session's evidence to candidates of the search: what each costs, what it promises, what was seen. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from agent.priors import Facts, feasible_prior, prior, size_prior
from agent.search import Candidate, Seen
from tools.contracts import BuildResult, EvidenceKind, Hardware, Measured, Precision, Recipe, Student
from tools.hardware import has_bf16_kernels, has_fp8_kernels, has_fp16_kernels, has_int8_kernels
from tools.selection import QUEUEING_FACTOR, Configured, breaches, configurations, figure
from tools.view import SessionView, Tried

PROMISING_BATCH = 16
"""Where the curve of throughput over batch size has usually flattened."""
SPREAD = 1.3
"""How far a p99 usually lies above its median."""
PROCESS_SD = 0.02
"""Standard deviation of ln(figure) between two processes that run the same, beside what an interval knows of."""
SWEEP_S = 15.0
BUILD_S = {
    "cast": 1.0,
    "script": 3.0,
    "convert-openvino": 2.0,
    "export-onnx": 6.0,
    "quantize-dynamic": 4.0,
    "quantize-static": 6.0,
    "quantize-nncf": 8.0,
    "quantize-mixed": 40.0,
    "quantize-pt2e": 15.0,
    "quantize-aware": 60.0,
    "prune-channels": 4.0,
}
"""What a transform takes before one was seen."""
TRAINING_SHARE = 0.5
"""Of the time that a training may take, before one was seen."""
_UNKNOWN_BUILD_S = 10.0
_UNKNOWN_STUDENT_SHARE = 0.4
"""Of the model's FLOPs: who names a student means it to be smaller by about this."""
_TRIAL_S = {"compiled": 35.0, "compiled-cuda": 60.0, "onnxruntime-tensorrt": 60.0}
_USUAL_TRIAL_S = 7.0


@dataclass(frozen=True)
class Target:
    """What a candidate of the search stands for: a recipe, at its smallest batch or at all of them."""

    recipe: Recipe
    swept: bool


@dataclass(frozen=True)
class Prospecting:
    """A search problem.

    Attributes:
        targets: what each key stands for.
    """

    candidates: tuple[Candidate, ...]
    seen: tuple[Seen, ...]
    built: frozenset[str]
    targets: dict[str, Target]


def prospecting(view: SessionView, recipes: tuple[Recipe, ...]) -> Prospecting:
    """Return recipes as candidates, with what is known of them.

    For the cost of a request a candidate is a recipe with its batch sizes swept: trying it at the smallest batch first
    is a part of what that costs. For latency and size the smallest batch is all that counts.
    """
    facts = facts_of(view, recipes)
    sweeps = view.spec.objective.minimize == "cost" and view.workload.source.fixed_batch is None
    candidates: dict[str, Candidate] = {}
    targets: dict[str, Target] = {}
    seen: list[Seen] = []
    everything = {r.digest: r for r in (*recipes, *(t.recipe for t in view.ran))}
    failed = {e.recipe.digest for e in view.of_kind(EvidenceKind.BUILD) if not isinstance(e.outcome, Measured)}
    for recipe in everything.values():
        tried = view.tried.get(recipe.digest)
        if tried is not None and not tried.ran:
            continue
        if failed.intersection(_beginnings(recipe)):  # it would fail in the same place
            continue
        first = _candidate(view, facts, recipe, swept=False)
        if tried is not None:
            candidates[first.key] = first
            seen.append(_seen(view, first.key, tried, [tried.first_point.batch_size]))
        elif not sweeps:
            candidates[first.key] = first
            targets[first.key] = Target(recipe, swept=False)
        if not sweeps:
            continue
        whole = _candidate(view, facts, recipe, swept=True)
        if tried is not None and (_was_swept(view, recipe) or tried.given_up is not None):
            if len(tried.points) > 1:
                candidates[whole.key] = whole
                seen.append(_seen(view, whole.key, tried, list(tried.points)))
            continue
        candidates[whole.key] = whole
        targets[whole.key] = Target(recipe, swept=tried is not None)
    built = frozenset(e.recipe.digest for e in view.of_kind(EvidenceKind.BUILD))
    tried_ones = frozenset(_trial_part(t.recipe) for t in view.tried.values())
    return Prospecting(tuple(candidates.values()), tuple(seen), built | tried_ones, targets)


def slowest_gain(batch: int, baseline_ms: float, p99_ms: float | None) -> float:
    """Return ln(gain in requests per second) below which batches of this size break the SLO.

    A call of b requests at g times the baseline's rate takes b / g times as long as the baseline's call of one.

    Args:
        batch: b, above 1 with another's batch to wait for.
        baseline_ms: median of the model as given, at batch 1.
        p99_ms: the SLO; None for none.
    """
    if p99_ms is None:
        return -math.inf
    waiting = 1.0 if batch == 1 else QUEUEING_FACTOR
    return math.log(waiting * SPREAD * baseline_ms * batch / p99_ms)


def facts_of(view: SessionView, recipes: Iterable[Recipe]) -> Facts:
    """Return what is known of machine and model before the first trial."""
    precisions = precisions_with_kernels(view.hardware)
    return Facts(precisions=precisions, threads=_threads(view), flops=_flops(view, recipes))


def precisions_with_kernels(hardware: Hardware) -> frozenset[str]:
    """Return the precisions that a machine need not emulate, by their names."""
    precisions = {Precision.FP32.value, Precision.INT4_WEIGHTS.value}
    if has_bf16_kernels(hardware):
        precisions.add(Precision.BF16.value)
    if has_fp16_kernels(hardware):
        precisions.add(Precision.FP16.value)
    if has_fp8_kernels(hardware):
        precisions.add(Precision.FP8.value)
    if has_int8_kernels(hardware):
        precisions |= {p.value for p in Precision if p.value.startswith("int8")}
    return frozenset(precisions)


def levels_of(view: SessionView, recipe: Recipe, batch: int) -> dict[str, str]:
    """Return a recipe's levels: all that it has in common with others, or not."""
    quantizing = [s for s in recipe.steps if s.transform.startswith("quantize")]
    how = ", ".join(f"{s.transform} {sorted(s.settings.items())}" for s in quantizing)
    usual = ("threads", "streams", "max_length")
    return {
        "student": recipe.variant,
        "runtime": recipe.runtime,
        "precision": recipe.precision.value,
        "quantizer": how,
        "threads": str(recipe.settings.get("threads", _threads(view))),
        "streams": str(recipe.settings.get("streams", 1)),
        "max_length": str(recipe.settings.get("max_length", "")),
        "settings": ", ".join(f"{k}={v}" for k, v in sorted(recipe.settings.items()) if k not in usual),
        "batch": str(batch),
    }


def _candidate(view: SessionView, facts: Facts, recipe: Recipe, *, swept: bool) -> Candidate:
    levels = levels_of(view, recipe, 1)
    if view.spec.objective.minimize == "size":
        gain, spread = size_prior(levels, facts)
    else:
        gain, spread = prior(levels, facts)
        if swept:
            levels["batch"] = str(_promising_batch(view, recipe, gain))
            gain, spread = prior(levels, facts)
    parts = dict(_parts(view, recipe))
    trial_s = _usual_trial_s(view, recipe)
    if swept:
        parts[_trial_part(recipe)] = trial_s
    return Candidate(
        key=f"{recipe.digest}{' swept' if swept else ''}",
        levels=levels,
        gain=gain,
        spread=spread,
        parts=parts,
        measure_s=_usual_sweep_s(view) if swept else trial_s,
        feasible=feasible_prior(levels),
        least_gain=_least_gain(view, swept=swept),
        trials=0 if recipe.digest in view.tried else 1,
        name=f"{recipe.name} with the best batch" if swept else recipe.name,
    )


def _least_gain(view: SessionView, *, swept: bool) -> float:
    """Return what a candidate must gain to keep the SLO. Swept, it has smaller batches to fall back on."""
    assert view.baseline is not None
    if swept or view.spec.objective.minimize == "size":
        return -math.inf
    return slowest_gain(view.low_batch, view.baseline.first_point.latency_ms.p50.value, view.spec.objective.p99_ms)


def _seen(view: SessionView, key: str, tried: Tried, sizes: list[int]) -> Seen:
    """Return the best of a recipe's configurations at these batch sizes as an observation."""
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    baseline = view.baseline
    assert baseline is not None
    reference = figure(Configured(baseline, baseline.first_point), objective, price).value
    measured = [c for c in configurations([tried]) if c.point.batch_size in sizes]
    kept = [c for c in measured if not breaches(c, objective)]
    best = min(kept or measured, key=lambda c: figure(c, objective, price).value)
    found = figure(best, objective, price)
    sd = math.log(found.high / found.low) / (2 * 1.96) if found.low > 0 else 0.0
    accuracy = tried.accuracy
    return Seen(
        key=key,
        log_gain=math.log(reference / found.value),
        sd=math.hypot(sd, PROCESS_SD),
        feasible=bool(kept) and tried.given_up is None,
        accurate=accuracy is not None and accuracy.drop.value <= objective.max_accuracy_drop,
    )


def _parts(view: SessionView, recipe: Recipe) -> list[tuple[str, float]]:
    """Return what has to be built for a recipe: each prefix of its steps, with its expected seconds."""
    return [(name, _usual_build_s(view, recipe, index)) for index, name in enumerate(_beginnings(recipe))]


def _beginnings(recipe: Recipe) -> list[str]:
    """Return the names of what is built on the way to a recipe, as evidence has them."""
    lengths = range(1, len(recipe.steps) + 1)
    return [Recipe(steps=recipe.steps[:length], runtime="build").digest for length in lengths]


def _usual_build_s(view: SessionView, recipe: Recipe, index: int) -> float:
    step = recipe.steps[index]
    same = [
        e.seconds
        for e in view.of_kind(EvidenceKind.BUILD)
        if e.recipe.steps[-1].transform == step.transform and isinstance(e.outcome, Measured)
    ]
    if same:
        return sum(same) / len(same)
    if "max_s" in step.settings:
        return TRAINING_SHARE * float(step.settings["max_s"] or 0.0)
    return BUILD_S.get(step.transform, _UNKNOWN_BUILD_S)


def _usual_trial_s(view: SessionView, recipe: Recipe) -> float:
    same = [
        e.seconds
        for e in view.of_kind(EvidenceKind.TRIAL)
        if e.recipe.runtime == recipe.runtime and isinstance(e.outcome, Measured)
    ]
    return sum(same) / len(same) if same else _TRIAL_S.get(recipe.runtime, _USUAL_TRIAL_S)


def _usual_sweep_s(view: SessionView) -> float:
    same = [e.seconds for e in view.of_kind(EvidenceKind.SWEEP) if len(e.parameters["batch_sizes"]) > 1]
    return sum(same) / len(same) if same else SWEEP_S


def _trial_part(recipe: Recipe) -> str:
    return f"trial {recipe.digest}"


def _was_swept(view: SessionView, recipe: Recipe) -> bool:
    return any(e.recipe == recipe and len(e.parameters["batch_sizes"]) > 1 for e in view.of_kind(EvidenceKind.SWEEP))


def _promising_batch(view: SessionView, recipe: Recipe, gain: float) -> int:
    """Return the largest batch up to `PROMISING_BATCH` that should keep the SLO, queueing included."""
    slo_ms, baseline = view.spec.objective.p99_ms, view.baseline
    assert baseline is not None
    if slo_ms is None:
        return PROMISING_BATCH
    tried = view.tried.get(recipe.digest)
    if tried is not None and tried.ran:
        first_ms = tried.first_point.latency_ms.p50.value
    else:
        first_ms = baseline.first_point.latency_ms.p50.value / math.exp(gain)
    fixed, batch = Facts(frozenset(), 1).fixed_share, 1
    while batch < PROMISING_BATCH:
        larger_ms = first_ms * (fixed + (1 - fixed) * 2 * batch)
        if 2 * SPREAD * larger_ms > slo_ms:
            break
        batch *= 2
    return batch


def _threads(view: SessionView) -> int:
    return view.spec.hardware.threads or view.hardware.cores


def _flops(view: SessionView, recipes: Iterable[Recipe]) -> dict[str, float]:
    """Return the FLOPs of each variant over those of the model as given: as counted, or as its steps suggest."""
    whole = view.profile.flops if view.profile is not None else 0.0
    counted: dict[str, float] = {}
    for evidence in view.of_kind(EvidenceKind.BUILD):
        match evidence.outcome:
            case Measured(result=BuildResult(facts=facts)) if whole > 0 and facts.get("flops"):
                counted[evidence.recipe.variant] = float(facts["flops"] or 0.0) / whole
            case _:
                continue
    students = {s.name: _share_of(s) for s in view.workload.students}
    shares: dict[str, float] = {}
    for recipe in recipes:
        share = 1.0
        for step in recipe.steps:
            if step.transform == "distill":
                share *= students.get(str(step.settings["student"]), _UNKNOWN_STUDENT_SHARE)
            elif step.transform == "prune-channels":
                share *= (1.0 - float(step.settings["ratio"] or 0.0)) ** 2
        shares[recipe.variant] = counted.get(recipe.variant, share)
    return shares


def _share_of(student: Student) -> float:
    """Return a student's FLOPs over its teacher's: both ends of a layer are narrower, and there are fewer layers."""
    own = _UNKNOWN_STUDENT_SHARE if student.factory is not None else 1.0
    return own * student.width**2 * student.depth
