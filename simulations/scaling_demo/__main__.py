"""`python -m simulations.scaling_demo`: from a week of traffic to a patched, watched and rolled back autoscaler.

A real Prometheus holds the week and goes on scraping; the API server is a stand-in that answers as Kubernetes does.
Everything else is infertune as a user runs it: each step is its command line, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from simulations.api_server import ApiServer
from simulations.prometheus_server import prometheus
from simulations.prometheus_week import service_life
from simulations.scaling_demo.live import DEPLOYMENT, LiveService
from tools.errors import InfertuneError
from tools.result import SessionResult
from tools.traffic import bundled_day
from tools.workloads.bundled import bundled_spec, prepare

NAMESPACE, HPA = "inference", "image-classifier"
WEEKEND = 0.6
"""Share of a working day's traffic that Saturday and Sunday have."""
PEAK_REPLICAS = 3.4
"""So many replicas, fully used, would take the highest rate of the week."""
TUNING_S, VERIFY_S = 60, 60
P99_MS = 100.0
"""The promise: one that a machine keeps too on which other processes run."""
TODAY = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": HPA, "namespace": NAMESPACE, "labels": {"infertune.dev/managed": "true", "team": "vision"}},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": HPA},
        "minReplicas": 3,
        "maxReplicas": 40,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
            }
        ],
    },
}
"""What runs before: bounded by guess, and far too generous."""
HEALTHY = [
    {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "recommended size matches"},
    {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "the HPA was able to compute"},
    {"type": "ScalingLimited", "status": "False", "reason": "DesiredWithinRange", "message": "the count is acceptable"},
]


def main() -> int:
    """Run the demonstration; returns what the last command that should succeed returned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".infertune"), help="default: .infertune")
    home = parser.parse_args().home.resolve()
    with tempfile.TemporaryDirectory(prefix="infertune-demo-") as folder:
        try:
            _demonstrate(home, Path(folder))
        except InfertuneError as error:
            sys.stderr.write(f"infertune: {error}\n")
            return 2
    return 0


def _demonstrate(home: Path, folder: Path) -> None:
    _title("1. One replica of the bundled digits-tiny: what can it do? What was measured before is not measured again")
    spec = _write_spec(folder, home)
    _run(home, "optimize", str(spec), quiet=True)
    measured = _latest(home)
    best = measured.best
    if best is None or measured.verdict.value != "MET":
        raise InfertuneError(f"the model could not be tuned here: {measured.summary}")
    _say(f"{best.recipe} at batch {best.batch_size}: {best.throughput_rps:,.0f} requests a second")
    with LiveService(0.5 * best.throughput_rps) as live, ApiServer(namespace=NAMESPACE, hpa=HPA) as server:
        _title("2. A week of its traffic in a real Prometheus, and an API server with today's autoscaler")
        week = _week(best.throughput_rps)
        start_s = int(time.time()) // 60 * 60 - 60 * len(week)
        text = service_life(week, start_s=start_s, rps_per_replica=best.throughput_rps, deployment=DEPLOYMENT)
        with prometheus(text, folder / "prometheus", scrape=(live.address,)) as url:
            server.put_hpa(TODAY)
            server.set_status(NAMESPACE, HPA, current=3, desired=3, conditions=HEALTHY)
            _say(f"Prometheus at {url}: {len(week):,} minutes, up to {max(week):,.0f} requests a second")
            _connect(spec, url, server.kubeconfig(folder / "kubeconfig"))
            _chain(home, spec, server, live)


def _chain(home: Path, spec: Path, server: ApiServer, live: LiveService) -> None:
    _title("3. Which rights do the two identities have?")
    _run(home, "doctor", "--cluster", str(spec))
    _title("4. Recommendation: the week, second by second, under each setting of the autoscaler")
    result = _planned(home, spec)
    _title("5. The plan, with the API server's own diff")
    assert result.plan is not None
    plan = result.plan.digest
    _run(home, "plan", "show", plan)
    _title("6. A person approves, in another process")
    _run(home, "plan", "approve", plan, "--by", "Ada Demo")
    _title(f"7. Applied, and watched for {VERIFY_S} s")
    _run(home, "plan", "apply", plan)
    _say(_bounds(server))
    _title("8. Somebody puts the old setting back; a new plan; and this time requests become slow when it is applied")
    server.edit_hpa(NAMESPACE, HPA, {"spec": {**TODAY["spec"], "behavior": None}})  # type: ignore[dict-item]
    result = _planned(home, spec)
    assert result.plan is not None
    _run(home, "plan", "approve", result.plan.digest, "--by", "Ada Demo")
    live.become(slow=True)
    _run(home, "plan", "apply", result.plan.digest, expected=3)
    _say(_bounds(server))
    _title("9. What was recorded")
    _show_record(home)


def _planned(home: Path, spec: Path) -> SessionResult:
    """Run a session with the cluster in its spec, and say what it recommends."""
    _run(home, "optimize", str(spec), quiet=True)
    result = _latest(home)
    if result.scaling is None or result.plan is None:
        raise InfertuneError(f"no plan was offered: {' '.join(result.notes)}")
    _say(result.scaling.sentence)
    recommendation = result.scaling.recommendation
    assert recommendation is not None, "a plan rests on one"
    _say(f"{recommendation.effort.settings} settings in {recommendation.effort.seconds:.0f} s")
    _say(f"Plot of traffic, replicas and p99, before and after: {result.files['report']}")
    return result


def _show_record(home: Path) -> None:
    import mlflow

    uri = f"sqlite:///{home / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.infertune.plan != ''", order_by=["start_time DESC"], max_results=2)
    for run in reversed(runs):
        tags = run.data.tags
        _say(f"MLflow run {run.info.run_name}: plan {tags['infertune.plan']}, {tags['infertune.plan_state']}")
        files = [f.path for f in client.list_artifacts(run.info.run_id)]
        _say(f"  {len(run.data.metrics)} metrics; files: {', '.join(files)}")
    _run(home, "plan", "list")


def _week(rps_per_replica: float) -> list[float]:
    """Return a rate for each minute of seven days: the bundled day, quieter at the weekend, growing by 2 % a day."""
    day = np.asarray(bundled_day().rps)
    days = [day * (WEEKEND if number in (5, 6) else 1.0) * 1.02**number for number in range(7)]
    week = np.concatenate(days)
    rates: list[float] = (week * PEAK_REPLICAS * rps_per_replica / week.max()).tolist()
    return rates


def spec_without_traffic(home: Path, p99_ms: float) -> dict[str, Any]:
    """Return the spec of digits-tiny as a document, without traffic and HPA; trains it where there are no weights yet.

    Args:
        home: where its weights are.
        p99_ms: what it promises.
    """
    weights = prepare("digits-tiny", str(home))
    spec: dict[str, Any] = json.loads(bundled_spec("digits-tiny", Path(weights)).model_dump_json())
    del spec["hpa"], spec["traffic"]
    spec["objective"]["p99_ms"] = p99_ms
    return spec


def _write_spec(folder: Path, home: Path) -> Path:
    spec = spec_without_traffic(home, P99_MS)
    spec["search"] = {"only": ["onnxruntime", "openvino"], "max_trials": 6}
    spec["budget"] = {"time_s": TUNING_S, "tolerate_noise": True}  # it shows scaling: other processes may run beside it
    return _written(folder / "tuning.yaml", spec)


def _connect(path: Path, url: str, kubeconfig: Path) -> None:
    """Put Prometheus and the cluster into a spec."""
    spec = yaml.safe_load(path.read_text())
    spec["traffic"] = {"prometheus": {"url": url, "preset": "ray-serve", "labels": {"deployment": DEPLOYMENT}}}
    spec["cluster"] = {
        "context": "reader",
        "writer_context": "writer",
        "kubeconfig": str(kubeconfig),
        "namespace": NAMESPACE,
        "hpa": HPA,
        "allow_namespaces": [NAMESPACE],
        "apply": True,
        "bounds": {"min_replicas": 2, "max_replicas": 20},
        "verify_s": VERIFY_S,
        "cooldown_s": 0,
    }
    _written(path, spec)


def _written(path: Path, spec: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def _latest(home: Path) -> SessionResult:
    folder = max((f for f in (home / "sessions").iterdir() if (f / "result.json").exists()), key=lambda f: f.name)
    return SessionResult.model_validate_json((folder / "result.json").read_bytes())


def _bounds(server: ApiServer) -> str:
    spec = server.hpa(NAMESPACE, HPA)["spec"]
    metrics = ", ".join(
        str(m.get("resource", m.get("pods", {}).get("metric", {})).get("name")) for m in spec["metrics"]
    )
    return f"The HPA in the cluster now: {spec['minReplicas']} to {spec['maxReplicas']} replicas, by {metrics}."


def _run(home: Path, *arguments: str, quiet: bool = False, expected: int = 0) -> None:
    """Run an infertune command as a user would, in a process of its own.

    Raises:
        InfertuneError: it ended otherwise than expected.
    """
    command = [sys.executable, "-m", "agent.cli", *arguments, "--home", str(home)]
    if arguments[0] == "doctor":
        command = command[:-2]
    _say(f"$ infertune {' '.join(arguments)}")
    done = subprocess.run(command, capture_output=quiet, text=True, check=False)
    if done.returncode not in (expected, 3 if quiet else expected):
        raise InfertuneError(
            f"`infertune {arguments[0]}` ended with {done.returncode}: {(done.stderr or '').strip()[-600:]}",
            where="the demonstration",
        )


def _title(text: str) -> None:
    _say(f"\n{text}\n{'-' * min(len(text), 110)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
