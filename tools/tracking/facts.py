"""What a session's result becomes in MLflow: tags, parameters and metrics. Pure functions of `SessionResult`.

Metric names keep MLflow's customs (`batch_8_throughput_req_sec`). Costs are US dollars per 1,000 requests. A number
that does not exist, or is not finite, has no metric: a zero would be a lie.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TypeAlias

from tools.contracts import BatchPoint, Interval, Precision, Recipe, digest_of
from tools.result import Configuration, SessionResult, TrialSummary
from tools.tracking.naming import UNITS, description, run_name, trial_name

Texts: TypeAlias = dict[str, str]
Metrics: TypeAlias = dict[str, float]

SESSION_TAG = "infertune.session"
RESULT_TAG = "infertune.result"
"""Digest of the result that a run mirrors: a session that was resumed and ended anew is recorded anew."""
COMPLETE_TAG = "infertune.complete"
"""Set last. A run without it is a recording that was interrupted."""
MODEL_NAME_TAG = "infertune.model_name"
MODEL_VERSION_TAG = "infertune.model_version"
NOTE_TAG = "infertune.note"
PLAN_TAG = "infertune.plan"
"""Digest of the change that was offered to a cluster."""
PLAN_STATE_TAG = "infertune.plan_state"
TRACE_TAG = "infertune.trace"
"""Id of the trace that shows how the session went."""
TRACE_NOTE_TAG = "infertune.trace_note"
"""Why there is none."""
VERDICT_TAG = "infertune.verdict"
WORKLOAD_TAG = "infertune.workload"
DESCRIPTION_TAG = "mlflow.note.content"


def session_tags(result: SessionResult) -> Texts:
    """Tags of the parent run. Those that are called `infertune.` are there to filter by."""
    return {
        **source_tags(run_name(result)),
        DESCRIPTION_TAG: description(result),
        SESSION_TAG: result.session,
        **_filters(result),
        **({} if result.plan is None else {PLAN_TAG: result.plan.digest, PLAN_STATE_TAG: result.plan.state}),
        RESULT_TAG: result_digest(result),
        "verdict": result.verdict.value,
        "workload": result.workload,
        "workload_digest": result.workload_digest,
        **{f"version.{name}": version for name, version in result.versions.items()},
    }


def _filters(result: SessionResult) -> Texts:
    hardware = result.hardware
    best = result.best
    filters: dict[str, object] = {
        VERDICT_TAG: result.verdict.value,
        WORKLOAD_TAG: result.workload,
        "infertune.workload_digest": result.workload_digest,
        "infertune.hardware": hardware.digest,
        "infertune.cpu": hardware.cpu,
        "infertune.accelerators": ", ".join(hardware.accelerators),
        "infertune.minimize": result.objective.minimize,
        "infertune.best_runtime": None if best is None else best.runtime,
        "infertune.best_precision": None if best is None else best.definition.precision.value,
        "infertune.advisor": None if result.advice is None else result.advice.model,
    }
    return _texts(filters)


def result_digest(result: SessionResult) -> str:
    """Name of this result, whatever is said in it about where it is recorded and how long that took."""
    return digest_of(result.model_dump(mode="json", exclude={"mlflow", "seconds"}))


def session_params(result: SessionResult) -> Texts:
    """Parameters of the parent run: what was asked, on which machine, and what was chosen."""
    hardware = result.hardware
    params: dict[str, object] = {
        **{f"objective_{name}": value for name, value in result.objective.model_dump(mode="json").items()},
        "price_per_hour_usd": result.price_per_hour_usd,
        "hardware_digest": hardware.digest,
        "hardware_cpu": hardware.cpu,
        "hardware_architecture": hardware.architecture,
        "hardware_cores": hardware.cores,
        "hardware_memory_mb": hardware.memory_mb,
        "hardware_flags": " ".join(hardware.flags),
        "hardware_accelerators": ", ".join(hardware.accelerators),
    }
    if result.best is not None:
        params |= {
            "best_recipe": result.best.recipe,
            "best_steps": _steps(result.best.definition),
            "best_runtime": result.best.runtime,
            "best_precision": result.best.definition.precision.value,
            "best_batch_size": result.best.batch_size,
            "best_artifact": result.best.artifact_ref.digest,
        }
    if result.batch is not None:
        params |= {"batch_sla": result.batch.sla_batch, "batch_job": result.batch.job_batch}
    return _texts(params)


def session_metrics(result: SessionResult) -> Metrics:
    """Metrics of the parent run: the baseline, the best, their ratios, and where the time went.

    Their names are the same in every session, whatever it tuned, so that MLflow can lay sessions side by side.
    """
    metrics: Metrics = {}
    for prefix, configuration in (("baseline", result.baseline), ("best", result.best)):
        if configuration is not None:
            metrics |= _configuration(prefix, configuration)
    if result.ratio is not None:
        for name in ("p50", "throughput", "cost"):
            metrics |= interval_metrics(f"ratio_{name}", getattr(result.ratio, name))
    metrics |= {f"seconds_{name}": value for name, value in result.seconds.model_dump().items()}
    metrics |= {f"margin_{slug(m.constraint)}": m.margin for m in result.margins}
    if result.advice is not None:
        metrics |= {
            "advice_seconds": result.advice.seconds,
            "advice_tokens_in": result.advice.tokens_in,
            "advice_tokens_out": result.advice.tokens_out,
        }
    if result.scaling is not None:
        metrics |= {
            **interval_metrics("capacity_req_sec", result.scaling.capacity_rps),
            "replicas_p95": result.scaling.replicas_p95,
            "replicas_peak": result.scaling.replicas_peak,
            "daily_cost_usd": result.scaling.daily_cost_usd,
        }
    for trial in result.trials:
        if trial.chosen:
            metrics |= _sweep(trial)
        for name, loss in _accuracy_loss(trial).items():
            metrics[name] = min(loss, metrics.get(name, math.inf))  # the least that this precision cost
    metrics["trials"] = len(result.trials)
    metrics["trials_measured"] = sum(trial.outcome == "measured" for trial in result.trials)
    return finite(metrics)


def trial_tags(trial: TrialSummary, parent_run_id: str) -> Texts:
    """Tags of a nested run."""
    return {
        **source_tags(trial_name(trial)),
        DESCRIPTION_TAG: f"{trial.reason}\n\n{UNITS}" if trial.reason else UNITS,
        "mlflow.parentRunId": parent_run_id,
        "outcome": trial.outcome,
        "chosen": str(trial.chosen).lower(),
        "feasible": str(trial.feasible).lower(),
    }


def trial_params(trial: TrialSummary) -> Texts:
    """Parameters of a nested run: the recipe and what became of it."""
    recipe = trial.definition
    return _texts(
        {
            "recipe": trial.recipe,
            "recipe_digest": recipe.digest,
            "steps": _steps(recipe),
            "runtime": recipe.runtime,
            "precision": recipe.precision.value,
            **{f"setting_{name}": value for name, value in recipe.settings.items()},
            "outcome": trial.outcome,
            "reason": trial.reason,
            "evidence": ", ".join(trial.evidence),
        }
    )


def trial_metrics(trial: TrialSummary) -> Metrics:
    """Metrics of a nested run."""
    metrics: Metrics = {"seconds": trial.seconds, **_sweep(trial), **_accuracy_loss(trial)}
    if trial.accuracy is not None:
        metrics["accuracy"] = trial.accuracy
    if trial.accuracy_drop is not None:
        metrics |= interval_metrics("accuracy_drop", trial.accuracy_drop)
    if trial.output_difference is not None:
        metrics["output_difference"] = trial.output_difference
    if trial.size_mb is not None:
        metrics["size_mb"] = trial.size_mb
    return finite(metrics)


def precision_name(precision: Precision) -> str:
    """Return a precision as metric names spell it: `int8` is the static one, the others keep their names."""
    return "int8" if precision is Precision.INT8_STATIC else precision.value.replace("-", "_")


def _sweep(trial: TrialSummary) -> Metrics:
    metrics: Metrics = {}
    for point in trial.points:
        metrics |= _point(point)
        cost = trial.cost_per_1000_usd.get(point.batch_size)
        if cost is not None:
            metrics[f"batch_{point.batch_size}_cost_usd"] = cost.value
    return metrics


def _point(point: BatchPoint) -> Metrics:
    prefix = f"batch_{point.batch_size}_"
    return {
        f"{prefix}throughput_req_sec": point.throughput_rps.value,
        f"{prefix}latency_p50_ms": point.latency_ms.p50.value,
        f"{prefix}latency_p95_ms": point.latency_ms.p95.value,
        **interval_metrics(f"{prefix}latency_p99_ms", point.latency_ms.p99),
        f"{prefix}peak_memory_mb": point.peak_memory_mb,
    }


def _configuration(prefix: str, configuration: Configuration) -> Metrics:
    return {
        f"{prefix}_p50_ms": configuration.latency_ms.p50.value,
        f"{prefix}_p95_ms": configuration.latency_ms.p95.value,
        **interval_metrics(f"{prefix}_p99_ms", configuration.latency_ms.p99),
        f"{prefix}_throughput_req_sec": configuration.throughput_rps,
        f"{prefix}_cost_usd": configuration.cost_per_1000_usd,
        f"{prefix}_accuracy": configuration.accuracy,
        **interval_metrics(f"{prefix}_accuracy_drop", configuration.accuracy_drop),
        f"{prefix}_batch_size": configuration.batch_size,
        f"{prefix}_size_mb": configuration.size_mb,
        f"{prefix}_memory_mb": configuration.memory_mb,
    }


def _accuracy_loss(trial: TrialSummary) -> Metrics:
    if trial.accuracy_drop is None:
        return {}
    return {f"{precision_name(trial.definition.precision)}_accuracy_loss": trial.accuracy_drop.value}


def interval_metrics(name: str, interval: Interval) -> Metrics:
    """Return a value and both ends of its interval."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def finite(metrics: Metrics) -> Metrics:
    """Return the metrics that are numbers."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _texts(values: dict[str, object]) -> Texts:
    return {name: str(value) for name, value in values.items() if value is not None and value != ""}


def _steps(recipe: Recipe) -> str:
    """Return the transforms in order: `export-onnx > quantize-static {"per_channel": true}`."""
    return " > ".join(
        f"{step.transform} {json.dumps(step.settings, sort_keys=True)}" if step.settings else step.transform
        for step in recipe.steps
    )


def slug(text: str) -> str:
    """Return a text as part of a metric's name."""
    return "".join(c if c.isalnum() else "_" for c in text.lower()).strip("_")


def milliseconds(iso: str) -> int:
    """Return a moment as MLflow keeps it: milliseconds since 1970."""
    return round(datetime.fromisoformat(iso).timestamp() * 1000)


def source_tags(name: str) -> Texts:
    """Tags that every run has: its name, and who wrote it."""
    return {"mlflow.runName": name, "mlflow.source.name": "infertune", "mlflow.source.type": "LOCAL"}
