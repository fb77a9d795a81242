"""All files of a service: a kustomize base, components, and an overlay for each environment.

service.json                    the figures that the rest is made from, each with its source
base/                           model server, autoscaler, disruption budget, the two identities of infertune
components/monitoring/          ServiceMonitor
components/schedule/            CronJob that runs infertune as the reader
overlays/{staging,production}/  namespace, images, bounds, SLO rules
overlays/*-keda/                the same with KEDA's ScaledObject in place of the HPA
prometheus-adapter/             rules for the cluster's metrics adapter
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tools.manifests import autoscaling, metrics, rbac, schedule, slo, workload
from tools.manifests.labels import JOB, SERVER
from tools.manifests.names import parse_image
from tools.manifests.readme import readme
from tools.manifests.render import render
from tools.manifests.service import FILE, Service, Sourced
from tools.scaling.manifest import Manifest

ADAPTER_NAMESPACE = "monitoring"


@dataclass(frozen=True)
class Environment:
    """Where the service runs, and between how many replicas."""

    name: str
    namespace: str
    replicas: tuple[int, int]
    is_production: bool


def environments(service: Service) -> tuple[Environment, ...]:
    """Return staging and production."""
    bounds = service.autoscaler.value
    replicas = bounds.get("minReplicas", 1), bounds["maxReplicas"]
    return (
        Environment("staging", f"{service.namespace}-staging", autoscaling.STAGING_REPLICAS, is_production=False),
        Environment("production", service.namespace, replicas, is_production=True),
    )


def tree(service: Service) -> dict[str, str]:
    """Return the content of each file by its path, `/` between folders. The same service gives the same bytes."""
    return {
        FILE: json.dumps(service.model_dump(mode="json"), indent=2) + "\n",
        "README.md": readme(service, [e.namespace for e in environments(service)]),
        **dict(_base(service)),
        **dict(_components(service)),
        **dict(_adapter(service)),
        **{path: text for where in environments(service) for path, text in _overlays(service, where)},
    }


def _base(service: Service) -> Iterator[tuple[str, str]]:
    files = {
        "deployment.yaml": _file(
            service,
            workload.deployment(service),
            cpu=service.cpu_milli,
            memory=service.memory_mib,
            gpus=service.gpus if service.gpus.value else None,
            MAX_BATCH_SIZE=service.max_batch,
            startupProbe=service.startup_s,
            terminationGracePeriodSeconds=service.termination_s,
        ),
        "service.yaml": _file(service, workload.service_object(service)),
        "service-account.yaml": _file(service, workload.server_account(service)),
        "hpa.yaml": _file(service, autoscaling.hpa(service), spec=service.autoscaler),
        "pdb.yaml": _file(service, workload.disruption_budget(service)),
        "rbac-reader.yaml": _file(service, *rbac.reader(service)),
        "rbac-writer.yaml": _file(service, *rbac.writer(service)),
    }
    yield from _folder(service, "base", files, _kustomization(resources=list(files)))


def _components(service: Service) -> Iterator[tuple[str, str]]:
    monitoring = {
        "service-monitor.yaml": _file(service, metrics.service_monitor(service), interval=service.scrape_s),
    }
    yield from _folder(service, "components/monitoring", monitoring, _component(resources=list(monitoring)))
    nightly = {
        "cron-job.yaml": _file(
            service,
            schedule.cron_job(service),
            cpu=service.cpu_milli,
            memory=service.job_memory_mib,
            activeDeadlineSeconds=service.job_deadline_s,
        ),
        "volume.yaml": _file(service, schedule.home_claim(service)),
        "network-policy.yaml": _file(service, schedule.network_policy(service)),
    }
    yield from _folder(service, "components/schedule", nightly, _component(resources=list(nightly)))


def _adapter(service: Service) -> Iterator[tuple[str, str]]:
    files = {"config-map.yaml": _file(service, metrics.adapter_config())}
    kustomization = _kustomization(namespace=ADAPTER_NAMESPACE, resources=list(files))
    yield from _folder(service, "prometheus-adapter", files, kustomization)


def _overlays(service: Service, where: Environment) -> Iterator[tuple[str, str]]:
    folder = f"overlays/{where.name}"
    files = {
        "slo-rules.yaml": _file(service, slo.prometheus_rule(service, where.namespace), slo=service.slo_ms),
    }
    components, patches = ["../../components/monitoring"], {}
    if where.is_production:
        components.append("../../components/schedule")
    else:
        patches["replicas.yaml"] = _file(service, autoscaling.replicas_patch(service, where.replicas))
    kustomization = _kustomization(
        namespace=where.namespace,
        resources=["../../base", *files],
        components=components,
        images=[_image(SERVER, service.image), *([_image(JOB, service.job_image)] if where.is_production else [])],
        patches=[{"path": name} for name in patches],
    )
    yield from _folder(service, folder, files | patches, kustomization)
    if not autoscaling.has_keda_triggers(service):
        return
    scaled = {
        "scaled-object.yaml": _file(
            service,
            autoscaling.scaled_object(service, namespace=where.namespace, replicas=where.replicas),
            triggers=service.autoscaler,
            serverAddress=service.prometheus_url,
        )
    }
    without = {"without-hpa.yaml": _file(service, autoscaling.without_hpa(service))}
    kustomization = _kustomization(
        namespace=where.namespace,
        resources=[f"../{where.name}", *scaled],
        patches=[{"path": name} for name in without],
    )
    yield from _folder(service, f"{folder}-keda", scaled | without, kustomization)


def _folder(service: Service, folder: str, files: dict[str, str], kustomization: Manifest) -> Iterator[tuple[str, str]]:
    yield f"{folder}/kustomization.yaml", _file(service, kustomization)
    for name, text in files.items():
        yield f"{folder}/{name}", text


def _file(service: Service, *documents: Manifest, **figures: Sourced[int] | Sourced[float] | object) -> str:
    """Render objects under a comment that says where their numbers come from."""
    notes = [f"{service.name}: made by `infertune manifests` from {service.origin}."]
    notes += [f"{name}: {f.source}." for name, f in figures.items() if isinstance(f, Sourced)]
    return render(notes, *documents)


def _kustomization(**fields: object) -> Manifest:
    header = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return {**header, **{name: value for name, value in fields.items() if value}}


def _component(resources: list[str]) -> Manifest:
    return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "resources": resources}


def _image(placeholder: str, reference: str) -> Manifest:
    image = parse_image(reference, "image")
    entry = {"name": placeholder, "newName": image.repository, "newTag": image.tag, "digest": image.digest}
    if image.digest is not None:
        del entry["newTag"]  # kustomize takes one of both, and the digest is the exact one
    return {key: value for key, value in entry.items() if value is not None}
