"""From a finished session, or from a spec alone, to the service that manifests are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tools.errors import SpecError
from tools.manifests import figures
from tools.manifests.names import check_labels, check_name, check_namespace, check_object_name, parse_image
from tools.manifests.service import Service, Sourced
from tools.result import SessionResult
from tools.scaling.manifest import read_hpa
from tools.spec import TuningSpec

DEFAULT_NAMESPACE = "default"
DEFAULT_PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
"""The Service that the Prometheus operator makes in its usual namespace."""


@dataclass(frozen=True)
class Choices:
    """What a person says on the command line; None is taken from the session or the spec."""

    name: str | None = None
    namespace: str | None = None
    image: str | None = None
    job_image: str | None = None


def from_session(result: SessionResult, spec: TuningSpec, choices: Choices) -> Service:
    """Return the service that a session recommends.

    Args:
        result: of a session that chose something.
        spec: of that session.
        choices: what a person says.

    Raises:
        SpecError: the session chose nothing, or a name, a label or the autoscaler in use cannot be used.
    """
    best = result.best
    if best is None:
        raise SpecError(
            f"the session ended {result.verdict.value} without a configuration to serve.",
            where=result.session,
            fix="Make manifests from a session that chose one, or from the spec alone.",
        )
    has_gpu = best.runtime.endswith(("-cuda", "-tensorrt"))
    measured = f"measured in session {result.session}"
    return _service(
        spec,
        choices,
        session=result.session,
        recipe=best.recipe,
        artifact=best.artifact_ref.digest,
        cpu_milli=figures.cpu(spec, result),
        memory_mib=figures.measured_memory(best, result.session),
        gpus=Sourced(value=int(has_gpu), source=f"{measured}: {best.runtime}"),
        max_batch=Sourced(value=best.batch_size, source=f"{measured}: the batch size that was chosen"),
        startup_s=figures.startup(best.load_ms, result.session),
        autoscaler=figures.recommended(result, best, spec),
    )


def from_spec(spec: TuningSpec, choices: Choices) -> Service:
    """Return a service of which nothing was measured: what the spec says, and defaults that say so.

    Raises:
        SpecError: a name, a label or the autoscaler in use cannot be used.
    """
    return _service(
        spec,
        choices,
        cpu_milli=figures.cpu(spec, None),
        memory_mib=figures.promised_memory(spec),
        gpus=Sourced(value=0, source=figures.UNMEASURED),
        max_batch=Sourced(value=1, source=figures.UNMEASURED),
        startup_s=figures.startup(None, None),
        autoscaler=figures.unmeasured(spec),
    )


def with_choices(service: Service, choices: Choices) -> Service:
    """Return the service under other names or with other images.

    Raises:
        SpecError: one of them cannot be used.
    """
    update: dict[str, str] = {}
    if choices.name is not None:
        update |= {"name": check_name(choices.name, "--name"), "hpa_name": choices.name}
    if choices.namespace is not None:
        update["namespace"] = check_namespace(choices.namespace, "--namespace")
    for field, image in (("image", choices.image), ("job_image", choices.job_image)):
        if image is not None:
            parse_image(image, f"--{field.replace('_', '-')}")
            update[field] = image
    return service.model_copy(update=update)


@dataclass(frozen=True)
class _Names:
    """As the cluster has them: the autoscaler to change keeps its name, and what it scales too."""

    name: str
    hpa_name: str
    namespace: str
    hpa_labels: dict[str, str]


def _service(spec: TuningSpec, choices: Choices, **measured: object) -> Service:
    """Add what the spec says of names, traffic and promises."""
    names = _names(spec, choices)
    traffic = None if spec.traffic is None else spec.traffic.prometheus
    slo_ms = spec.objective.p99_ms
    service = Service.model_validate(
        {
            "name": names.name,
            "hpa_name": names.hpa_name,
            "hpa_labels": names.hpa_labels,
            "namespace": names.namespace,
            "workload": spec.workload.name,
            "image": f"registry.example/{names.name}:set-me",
            "job_image": f"registry.example/{names.name}-infertune:set-me",
            "scrape_s": Sourced[int](value=math.ceil(spec.scaling.delays.scrape_s), source="scaling.delays.scrape_s"),
            "termination_s": figures.termination(spec),
            "slo_ms": None if slo_ms is None else Sourced[float](value=slo_ms, source="the spec's objective.p99_ms"),
            "prometheus_url": Sourced[str](value=DEFAULT_PROMETHEUS, source="a default: the Prometheus operator's")
            if traffic is None
            else Sourced[str](value=traffic.url, source="the spec's traffic.prometheus.url"),
            "job_memory_mib": figures.job_memory(spec),
            "job_deadline_s": figures.job_deadline(spec),
            **measured,
        }
    )
    return with_choices(service, Choices(image=choices.image, job_image=choices.job_image))


def _names(spec: TuningSpec, choices: Choices) -> _Names:
    """Take each name from what a person says, else from the cluster's part of the spec, else from the HPA in use."""
    name, hpa_name, namespace = spec.workload.name, None, DEFAULT_NAMESPACE
    where, named_in, labels = "workload.name", "the namespace", {}
    if spec.hpa is not None:
        where = named_in = spec.hpa.file
        in_use = read_hpa(Path(spec.hpa.file)).manifest
        target, metadata = in_use["spec"]["scaleTargetRef"], in_use["metadata"]
        if target["kind"] != "Deployment":
            raise SpecError(
                f"scales a {target['kind']}; manifests are made for a Deployment.",
                where=where,
                fix="Leave `hpa` out of the spec to have them made.",
            )
        name, hpa_name = target["name"], metadata["name"]
        namespace = str(metadata.get("namespace") or namespace)
        labels = check_labels(metadata.get("labels") or {}, where)
    if spec.cluster is not None:
        hpa_name, namespace = spec.cluster.hpa, spec.cluster.namespace
    if choices.name is not None:
        name, hpa_name, where = choices.name, None, "--name"
    if choices.namespace is not None:
        namespace, named_in = choices.namespace, "--namespace"
    name = check_name(name, where)
    return _Names(
        name=name,
        hpa_name=name if hpa_name is None else check_object_name(hpa_name, where),
        namespace=check_namespace(namespace, named_in),
        hpa_labels=labels,
    )
