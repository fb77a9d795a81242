"""The recommended HorizontalPodAutoscaler, as a file and a diff. Nothing is applied.

What is the team's stays theirs: name, namespace, labels, target, other metrics. Changed are the bounds, the queue
metric and how fast replicas come and go.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.artifacts import write_file
from tools.contracts import OWNED_FIELDS, HpaSpec
from tools.errors import StorageError
from tools.result import ScalingSummary
from tools.scaling.manifest import API_VERSION, KIND, Manifest, read_hpa, to_yaml, without_server_fields

QUEUE_METRIC = "request_queue_length"
"""Requests that wait in a replica: a gauge of each pod, served to the HPA by a metrics adapter.

Unlike CPU it says directly whether latency is at stake, and on an accelerator CPU says nothing.
"""

SCALE_UP: Manifest = {
    "stabilizationWindowSeconds": 0,
    "policies": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ],
    "selectPolicy": "Max",
}
"""At once, doubling or adding four in 15 s (a sync of the controller), whichever is more: what waits, waits now, and
four let a service of two grow before doubling counts. From 2: 6, 12, 24."""

SCALE_DOWN: Manifest = {
    "stabilizationWindowSeconds": 300,
    "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
    "selectPolicy": "Max",
}
"""Slowly: only to the highest need of the last five minutes, and 10 % a minute. The controller rounds the remainder
down, so a small service loses one replica a minute. A replica too many for some minutes costs cents, one too few
costs the SLO, and bursts come in groups."""


def recommended_hpa(
    before: Manifest | None, *, workload: str, min_replicas: int, max_replicas: int, queue_target: int, cpu_percent: int
) -> Manifest:
    """Return the recommended autoscaler; `before` is left as it is.

    Args:
        before: the autoscaler in use, or None to make a complete one.
        workload: name of the Deployment, and of the autoscaler, if there is none yet.
        min_replicas: lower bound.
        max_replicas: upper bound.
        queue_target: requests that may wait per replica, on average.
        cpu_percent: CPU target of an autoscaler that is made anew. It holds replicas while no queue builds: by the
            queue alone, a service that copes would shrink until it does not. An existing one's metrics are kept.
    """
    if before is None:
        before = _fresh_hpa(workload, cpu_percent)
    spec = before["spec"]
    behavior = spec.get("behavior") or {}
    changed = {
        **spec,
        "minReplicas": min_replicas,
        "maxReplicas": max_replicas,
        "metrics": _with_queue_metric(spec.get("metrics") or [], queue_target),
        "behavior": {
            **behavior,
            # Fields that are not ours, such as `tolerance`, stay.
            "scaleUp": {**(behavior.get("scaleUp") or {}), **SCALE_UP},
            "scaleDown": {**(behavior.get("scaleDown") or {}), **SCALE_DOWN},
        },
    }
    return {**before, "spec": changed}


def with_setting(before: Manifest | None, setting: HpaSpec, *, workload: str) -> Manifest:
    """Return an autoscaler with a setting in place of its bounds, metrics and behaviour; `before` is left as it is.

    Args:
        before: the autoscaler in use, or None to make one.
        setting: `minReplicas`, `maxReplicas`, `metrics`, and `behavior` if it is not the controller's own.
        workload: name of the Deployment, and of the autoscaler, if there is none yet.
    """
    if before is None:
        before = _fresh_hpa(workload, cpu_percent=0)
    kept = {name: value for name, value in before["spec"].items() if name not in OWNED_FIELDS}
    return {**before, "spec": {**kept, **{name: setting[name] for name in OWNED_FIELDS if name in setting}}}


def write_recommendation(
    summary: ScalingSummary,
    *,
    workload: str,
    hpa_file: Path | None,
    session_folder: Path,
    in_cluster: Manifest | None = None,
) -> ScalingSummary:
    """Write the autoscaler that `summary` asks for, and how it differs from the one in use.

    `<stem>.infertune.yaml` and `<stem>.infertune.diff` go beside `hpa_file`, which is never written to. Without a
    file, or if its folder cannot be written, they go into `session_folder`. The diff is one between canonical texts
    of both objects, so that it shows changes and no formatting.

    Args:
        summary: bounds and queue target to put in.
        workload: names the autoscaler and its Deployment if there is no file.
        hpa_file: the autoscaler in use today.
        session_folder: where the files go otherwise; made if it is not there.
        in_cluster: the autoscaler in use as the cluster has it, where it comes from there.

    Returns:
        The summary with the files' paths, the diff, and notes on both.

    Raises:
        SpecError: `hpa_file` is given and not usable (see `read_hpa`).
        StorageError: the session folder cannot be written either.
    """
    current = None if hpa_file is None else read_hpa(hpa_file)
    before = None if in_cluster is None else without_server_fields(in_cluster)
    before = before if current is None else current.manifest
    chosen = None if summary.recommendation is None else summary.recommendation.chosen
    if chosen is not None:
        after = with_setting(before, chosen.spec, workload=workload)
    else:
        after = recommended_hpa(
            before,
            workload=workload,
            min_replicas=summary.min_replicas,
            max_replicas=summary.max_replicas,
            queue_target=summary.queue_target,
            cpu_percent=round(100 * summary.utilization),
        )
    stem = "hpa" if hpa_file is None else hpa_file.stem
    text = to_yaml(after)
    before_name = hpa_file.name if hpa_file else "/dev/null" if before is None else f"{stem}.yaml"
    diff = unified_diff(before, after, before_name=before_name, stem=stem)
    notes = [*(() if current is None else current.notes), *_notes(before, after, summary)]
    try:
        paths = _write(hpa_file.parent if hpa_file else session_folder, stem, text, diff)
    except StorageError as error:
        if hpa_file is None:
            raise
        paths = _write(session_folder, stem, text, diff)
        notes.append(f"The recommended HPA is in {session_folder}, since beside yours it could not be: {error.what}")
    return summary.model_copy(
        update={
            "hpa_yaml": str(paths[0]),
            "hpa_diff_path": str(paths[1]),
            "hpa_diff": diff,
            "notes": (*summary.notes, *notes),
        }
    )


def unified_diff(before: Manifest | None, after: Manifest, *, before_name: str, stem: str) -> str:
    """Return the unified diff between the canonical texts of two objects; empty if nothing changes."""
    old = "" if before is None else to_yaml(before)
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        to_yaml(after).splitlines(keepends=True),
        fromfile=before_name,
        tofile=f"{stem}.infertune.yaml",
    )
    return "".join(lines)


def _fresh_hpa(workload: str, cpu_percent: int) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": workload},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
            "minReplicas": None,
            "maxReplicas": None,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": cpu_percent},
                    },
                }
            ],
        },
    }


def _with_queue_metric(metrics: list[Manifest], queue_target: int) -> list[Manifest]:
    target = {"type": "AverageValue", "averageValue": str(queue_target)}
    if not any(_is_queue_metric(m) for m in metrics):
        return [{"type": "Pods", "pods": {"metric": {"name": QUEUE_METRIC}, "target": target}}, *metrics]
    return [{**m, "pods": {**m["pods"], "target": target}} if _is_queue_metric(m) else m for m in metrics]


def _is_queue_metric(metric: Manifest) -> bool:
    return metric.get("type") == "Pods" and _at(metric, "pods", "metric", "name") == QUEUE_METRIC


def _at(value: Any, *keys: str) -> Any:
    """Return what is at this path of nested mappings, None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _write(folder: Path, stem: str, text: str, diff: str) -> tuple[Path, Path]:
    paths = folder / f"{stem}.infertune.yaml", folder / f"{stem}.infertune.diff"
    for path, content in zip(paths, (text, diff), strict=True):
        write_file(path, content)
    return paths


def _metric_notes(after: Manifest) -> Iterator[str]:
    """Say what the metrics need that the cluster does not have by itself."""
    metrics = after["spec"].get("metrics") or []
    custom = sorted({name for m in metrics for kind in ("pods", "object") if (name := _at(m, kind, "metric", "name"))})
    if custom:
        yield (
            f"The HPA reads {' and '.join(f'`{name}`' for name in custom)} through a metrics adapter "
            "(custom.metrics.k8s.io): `infertune manifests` writes its rules. While a metric is missing, nothing "
            "scales down."
        )
    queue = next((_at(m, "pods", "target", "averageValue") for m in metrics if _is_queue_metric(m)), None)
    if queue is not None:
        yield (
            f"A replica must accept more than {queue} waiting requests (by 10 %, the HPA's tolerance), or the queue "
            "never asks for another."
        )


def _notes(before: Manifest | None, after: Manifest, summary: ScalingSummary) -> Iterator[str]:
    """Say what a reviewer of the diff should know."""
    yield from _metric_notes(after)
    if before is None:
        yield f"No HPA was given: this one is new, for the Deployment `{after['metadata']['name']}` with a CPU request."
        return
    if before == after:
        yield "The HPA in use already is as recommended."
    old_max, old_min = before["spec"].get("maxReplicas"), before["spec"].get("minReplicas")
    if isinstance(old_max, int) and old_max > summary.max_replicas:
        limit_rps = summary.max_replicas * summary.usable_rps / summary.utilization
        yield (
            f"maxReplicas falls from {old_max} to {summary.max_replicas}: more than {limit_rps:,.0f} requests a second "
            "would queue or be refused. Keep yours if the trace lacks your worst day."
        )
    if isinstance(old_min, int) and old_min > summary.min_replicas:
        yield (
            f"minReplicas falls from {old_min} to {summary.min_replicas}: the traffic needs no more. Keep yours if it "
            "has another reason, such as zones or slow starts."
        )
    if _at(before, "spec", "behavior", "scaleDown", "selectPolicy") == "Disabled":
        yield "Scaling down was disabled and is now allowed: the daily cost rests on it."
    for metric in before["spec"].get("metrics") or []:
        cpu = _at(metric, "resource", "target", "averageUtilization")
        if _at(metric, "resource", "name") == "cpu" and isinstance(cpu, int) and cpu > 100 * summary.utilization:
            yield f"Your CPU target of {cpu} % is kept; the replicas are planned for {100 * summary.utilization:.0f} %."
