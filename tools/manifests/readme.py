"""The README of a tree: what is in it, how to use it, who may do what, and what nobody has tried."""

from __future__ import annotations

from collections.abc import Sequence

from tools.cluster.text import MESSAGE_LIMIT, shown
from tools.manifests.labels import reader_name, webhook_name, writer_name
from tools.manifests.service import Service, Sourced

_TEXT = """\
# {name}: manifests

Made by `infertune manifests` from {origin}.
Figures and their sources are in `service.json`. To change one, or an image, make the tree again:

    infertune manifests service.json --out . --image REGISTRY/IMAGE:TAG --force

| figure | value | where it comes from |
|---|---|---|
{figures}

## Use

    kubectl create namespace {staging}
    kubectl kustomize overlays/staging            # look first
    kubectl apply --dry-run=server -k overlays/staging
    kubectl apply -k overlays/staging

`overlays/production` does the same for `{namespace}`. Kubernetes 1.30 or later (`preStop.sleep`). The images are
placeholders until `--image` and `--job-image` name real ones.

Choose one way to get the queue to the autoscaler:

- **HPA and prometheus-adapter**: `overlays/staging`, `overlays/production`. The adapter needs the rules in
  `prometheus-adapter/`: `kubectl apply -k prometheus-adapter` makes a ConfigMap in `monitoring`; let the adapter's
  Helm chart use it (`rules.existing: infertune-adapter-rules`), or merge its rules with yours.
- **KEDA**: `overlays/staging-keda`, `overlays/production-keda`. No adapter needed. KEDA then owns the HPA, and
  infertune writes its recommendation as a patch and applies nothing. A Prometheus that wants a token needs a
  TriggerAuthentication of yours.

`components/monitoring` and the SLO rules need the Prometheus operator (ServiceMonitor, PrometheusRule). If your
Prometheus selects rules by label, such as `release: kube-prometheus-stack`, add that label in the overlay.

## What the images have to do

The model server listens on `$PORT`, batches up to `$MAX_BATCH_SIZE` requests, answers `/v2/health/live` and
`/v2/health/ready` (Open Inference Protocol v2), drains on SIGTERM, runs as any user with a read-only root file system
(`/tmp` is writable), and exports on `/metrics`:

- `request_queue_length`, a gauge: requests that wait;
- `requests_total{{code}}`, a counter by HTTP status, refused requests (429) too;
- `request_duration_seconds`, a histogram{bucket}.

The job's image has infertune, and in `/workload` the `tuning.yaml` with the model and the data that it names. Its
`cluster.context` is `in-cluster`. It measures, so it belongs on nodes like those that serve: give it their
`nodeSelector`. Its NetworkPolicy lets it reach DNS, ports 443 and 6443, and Prometheus; add an MLflow of yours.
Each night it looks for a reason first (model, data, code or libraries changed, the traffic drifted, the SLO was missed,
the evidence is old), and runs only then; the volume keeps evidence, and what was interrupted. To have a webhook told
what came of it, signed with a secret of yours:

    kubectl --namespace {namespace} create secret generic {webhook} \\
        --from-file url=webhook-url.txt --from-file secret=webhook-secret.txt

## Who may do what

| identity | rights | used by |
|---|---|---|
| `{name}` | none, and no token | the model server |
| `{reader}` | get, list and watch autoscalers of the namespace | the CronJob, which recommends and changes nothing |
| `{reader}`, by the Role `{reader}-pods` | get the Deployment `{name}`, list pods | the same, to measure how long a \
start takes |
| `{writer}` | get and patch the autoscaler `{hpa}`, nothing else | no pod: a person, for minutes |

The Role for pods is optional: without it, the delays of the spec are assumed. Listing pods shows the variables in their
specs too: drop Role and binding if any of them holds a secret.

To let an approved plan be applied, a person opts in (on the autoscaler, and with `cluster.apply` and
`cluster.allow_namespaces` in the spec), and gets a token that soon expires for the writer's context:

    kubectl --namespace {namespace} label hpa {hpa} infertune.dev/managed=true
    kubectl --namespace {namespace} create token {writer} --duration 10m

`kubectl apply -k` puts the autoscaler back to what is written here. After a change was applied, make the tree again.

## Alerts

`slo-rules.yaml` has multi-window, multi-burn-rate alerts (Google, The Site Reliability Workbook, chapter 5) for
availability (99.9 % over 30 days, a default){latency}.
`SloNotMeasured` tells when the others are blind.

## What was not tried

No cluster was at hand. infertune's tests validate what is made here against the published schemas (Kubernetes; KEDA
2.16; Prometheus operator 0.80), build it with kustomize, and run the rules with `promtool`, also against made-up
traffic. Nothing of it was ever applied to a running cluster: not the probes, not the adapter's rules, not KEDA, not the
security settings against a real image. Apply it to staging first.
"""


def readme(service: Service, namespaces: Sequence[str]) -> str:
    """Return the text.

    Args:
        service: what the tree is made from.
        namespaces: of staging and production.
    """
    slo = service.slo_ms
    return _TEXT.format(
        name=service.name,
        origin=_cell(service.origin),
        figures="\n".join(_rows(service)),
        staging=namespaces[0],
        namespace=namespaces[1],
        reader=reader_name(service),
        writer=writer_name(service),
        webhook=webhook_name(service),
        hpa=service.hpa_name,
        bucket="" if slo is None else f"; one of its bounds must be {slo.value / 1000:g} s, the SLO",
        latency="" if slo is None else f" and latency (99 % within {slo.value:g} ms, the spec's p99)",
    )


def _rows(service: Service) -> list[str]:
    bounds = service.autoscaler.value
    shown_figures: list[tuple[str, str, Sourced[int] | Sourced[float] | object]] = [
        ("cpu of a replica", f"{service.cpu_milli.value / 1000:g} cores", service.cpu_milli),
        ("memory of a replica", f"{service.memory_mib.value} MiB", service.memory_mib),
        ("batch", f"{service.max_batch.value}", service.max_batch),
        ("start", f"{service.startup_s.value} s at most", service.startup_s),
        ("end", f"{service.termination_s.value} s at most", service.termination_s),
        ("replicas", f"{bounds.get('minReplicas', 1)} to {bounds['maxReplicas']}", service.autoscaler),
        ("Prometheus", f"`{service.prometheus_url.value}`", service.prometheus_url),
    ]
    return [
        f"| {name} | {value} | {_cell(figure.source)} |"
        for name, value, figure in shown_figures
        if isinstance(figure, Sourced)
    ]


def _cell(text: str) -> str:
    """Return text from elsewhere as it may stand in a table's cell."""
    return shown(text, MESSAGE_LIMIT).replace("|", "\\|").replace("<", "&lt;")
