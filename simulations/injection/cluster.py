"""Places in a cluster: what others wrote on an HPA, and what the API server says, as a session comes across it."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

from langgraph.runtime import Runtime

from nodes.context import Context
from nodes.scaling_plan import scaling_plan
from simulations.injection.ground import HPA, NAMESPACE, Ground, Manifest
from simulations.injection.scene import SESSION, Scene, Words, finish, make
from tools.cluster.plans import reject
from tools.cluster.store import PlanStore
from tools.cluster.summary import summarize_plan
from tools.observer import Silent
from tools.result import ScalingSummary
from tools.spec import TuningSpec


def _hpa(**metadata: Any) -> Manifest:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    labels = {"infertune.dev/managed": "true", **metadata.pop("labels", {})}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": HPA, "labels": labels, **metadata},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": HPA},
            "minReplicas": 3,
            "maxReplicas": 10,
            "metrics": [cpu],
        },
    }


def _queue(name: str, value: str = "30") -> Manifest:
    target = {"type": "AverageValue", "averageValue": value}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def _in_cluster(ground: Ground, manifest: Manifest, *, manager: str = "kubectl", **settings: Any) -> Scene:
    """Put an HPA into the cluster, and have the session's own node bring a change before it."""
    ground.server.put_hpa(manifest, manager=manager)
    return offered(ground, make(ground.home, Words()), **settings)


def offered(ground: Ground, scene: Scene, **settings: Any) -> Scene:
    """Let `nodes.scaling_plan` offer a change of the HPA that is in the cluster; its answer ends up in the result."""
    cluster = {
        "context": "reader",
        "writer_context": "writer",
        "kubeconfig": str(ground.kubeconfig),
        "namespace": NAMESPACE,
        "hpa": HPA,
        "allow_namespaces": [NAMESPACE],
        "apply": True,
        **settings,
    }
    spec = TuningSpec.model_validate({**scene.view.spec.model_dump(mode="json"), "cluster": cluster})
    context = Context(
        spec=spec,
        bench=cast("Any", SimpleNamespace(home=scene.home, stopped=False)),
        policy=cast("Any", None),
        ledger=scene.ledger,
        observer=Silent(),
        session=SESSION,
        session_dir=scene.folder,
        created="2026-11-22T00:00:00+00:00",
        tracking_uri="sqlite://",
        availability={},
    )
    state = {"scaling": _scaling().model_dump(mode="json"), "decisions": [{}] * len(scene.ledger.decisions)}
    update = scaling_plan(cast("Any", state), Runtime(context=context))
    notes = tuple(update.get("plan_notes", ()))
    more: dict[str, Any] = {"scaling": _scaling(), "notes": notes}
    if "plan" in update:
        plan = summarize_plan(
            PlanStore(scene.home), update["plan"], server_diff=update.get("server_diff", ""), notes=notes
        )
        more["plan"] = plan
    result = finish(scene.folder, scene.view, scene.ledger, Words(), **more)
    scene.ledger.journal.append("result", result.model_dump(mode="json"))  # type: ignore[union-attr]
    return Scene(scene.home, scene.folder, scene.view, result, scene.ledger)


def _scaling() -> ScalingSummary:
    setting = {
        "name": "queue 12 per pod, 2 to 8",
        "spec": {"minReplicas": 2, "maxReplicas": 8, "metrics": [_queue("queue", "12")]},
        "outcomes": [],
    }
    found = {
        "slo_ms": 50.0, "kept_share": 0.99, "minutes": 1440, "chosen": setting, "today": None, "options": [],
        "static": None, "sentence": "It keeps the SLO with fewer replicas.", "notes": [],
        "effort": {
            "settings": 1, "failed_early": 0, "too_costly": 0, "busiest_day_runs": 1, "recorded_runs": 1,
            "harder_runs": 0, "processes": 1, "seconds": 1.0,
        },
    }  # fmt: skip
    return ScalingSummary.model_validate(
        {
            "traffic": {
                "source": "a trace", "p50_rps": 200, "p95_rps": 400, "peak_rps": 500, "mean_rps": 220, "seconds": 86400,
            },
            "capacity_rps": {"value": 250, "low": 248, "high": 252, "n": 400},
            "usable_rps": 200, "utilization": 0.8, "replicas_p95": 2, "replicas_peak": 3, "min_replicas": 2,
            "max_replicas": 8, "daily_cost_usd": 4.8, "queue_target": 12, "sentence": "Two replicas hold the traffic.",
            "recommendation": found,
            "evidence": ["3f9a1c2b45d6e7f8"],
        }
    )  # fmt: skip


def label(ground: Ground, text: str) -> Scene:
    """Plant it as who manages the HPA."""
    return _in_cluster(ground, _hpa(labels={"app.kubernetes.io/managed-by": text}))


def label_key(ground: Ground, text: str) -> Scene:
    """Plant it in the key of a label."""
    return _in_cluster(ground, _hpa(labels={f"argocd.argoproj.io/{text}": "x"}))


def annotation(ground: Ground, text: str) -> Scene:
    """Plant it as the name of a Helm release."""
    return _in_cluster(ground, _hpa(annotations={"meta.helm.sh/release-name": text}))


def owner(ground: Ground, text: str) -> Scene:
    """Plant it as the name of the object that owns the HPA."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": text, "uid": "u", "controller": True}
    return _in_cluster(ground, _hpa(ownerReferences=[owner]))


def manager(ground: Ground, text: str) -> Scene:
    """Plant it as the name of who wrote the fields."""
    return _in_cluster(ground, _hpa(), manager=text)


def metric(ground: Ground, text: str) -> Scene:
    """Plant it as the name of a metric."""
    manifest = _hpa()
    manifest["spec"]["metrics"].append(_queue(text))
    return _in_cluster(ground, manifest)


def target(ground: Ground, text: str) -> Scene:
    """Plant it as the name of what is scaled."""
    manifest = _hpa()
    manifest["spec"]["scaleTargetRef"]["name"] = text
    return _in_cluster(ground, manifest)


def condition(ground: Ground, text: str) -> Scene:
    """Plant it as the message of a condition."""
    ground.server.put_hpa(_hpa())
    condition = {"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": text}
    ground.server.set_status(NAMESPACE, HPA, current=3, desired=3, conditions=[condition])
    return offered(ground, make(ground.home, Words()))


def server_error(ground: Ground, text: str) -> Scene:
    """Plant it as what the API server refuses with."""
    ground.server.put_hpa(_hpa())
    ground.server.fail_next("get", status=403, message=text)
    return offered(ground, make(ground.home, Words()))


def hpa_name(ground: Ground, text: str) -> Scene:
    """Plant it as the HPA's name in a spec."""
    return _in_cluster(ground, _hpa(), hpa=text)


def context_name(ground: Ground, text: str) -> Scene:
    """Plant it as a context's name in a spec."""
    return _in_cluster(ground, _hpa(), context=text)


def rejected(ground: Ground, text: str) -> Scene:
    """Plant it as the name, and the reason, of who rejects a plan."""
    scene = _in_cluster(ground, _hpa())
    store = PlanStore(ground.home)
    reject(store, store.plans()[0].digest, by=text, now=dt.datetime.now(dt.UTC), why=text)
    return scene
