"""The commented spec that `infertune init` writes."""

from __future__ import annotations

from pathlib import Path

from tools.artifacts import write_file
from tools.errors import SpecError

TEMPLATE = """\
# yaml-language-server: $schema=./tuning.schema.json
# What infertune should optimize. Paths are relative to this file. `infertune check` validates it.
version: 1

workload:
  name: my-model                      # lower case, digits and dashes
  model:                              # exactly one of factory, onnx, pt2, torchscript
    factory: model.py:build           # a function that returns a torch.nn.Module
    # weights: weights.safetensors    # or a .pt state dict (loaded with weights_only=True)
    # onnx: model.onnx
    # pt2: model.pt2                  # torch.export.save
    # torchscript: model.ts           # torch.jit.save
  evaluation:                         # held out: accuracy is measured on these
    factory: data.py:evaluation       # a function that yields (inputs, targets) batches
    # npz: evaluation.npz             # arrays `inputs` and `targets`
    # limit: 1000                     # use at most so many items
  # calibration:                      # for static INT8; default: a part of the evaluation data
  #   factory: data.py:calibration
  # training:                         # to distil and fine-tune with; without it nothing is trained
  #   factory: data.py:training
  # loss: cross_entropy               # or mse, or losses.py:function; default: the model's own outputs are learnt
  metric: top1                        # top1, top5, mse, cosine, or metric.py:function(outputs, targets)
  # preprocess: data.py:preprocess    # then the data are raw items, and preprocessing is timed in the profile
  # postprocess: data.py:postprocess
  # normalization:                    # for images: how 8-bit pixels became the inputs; a model may then take the pixels
  #   mean: [0.485, 0.456, 0.406]     # input = (pixel / scale - mean) / std
  #   std: [0.229, 0.224, 0.225]
  #   scale: 255
  #   axis: 1                         # of the channels; 0 is the batch

objective:
  minimize: cost                      # cost (per 1,000 requests), latency or size
  p99_ms: 50                          # the SLO
  max_accuracy_drop: 0.01             # against the model as given; 0.01 is one point of top1
  # max_memory_mb: 2000
  # max_size_mb: 100

hardware:
  price_per_hour_usd: 0.10            # of one replica's machine, or its share of it
  # name: c7i.large
  # threads: 2                        # CPU threads of a replica; default: all of this machine

traffic:                              # for the number of replicas; exactly one of rate_rps, trace and prometheus
  rate_rps: 100
  # trace: traffic.csv                # columns: second, rps
  # prometheus:                       # the live traffic, as it was recorded
  #   url: http://prometheus:9090     # no user and no password in it
  #   preset: kserve                  # kserve, vllm, ray-serve, triton or nginx; or write queries of your own
  #   labels:                         # which series are this service's
  #     namespace: shop
  #     model_name: my-model
  #   queries:                        # PromQL in place of the preset's; {matchers} and {range} are filled in
  #     request_rate: sum(rate(requests_total{matchers}[{range}]))
  #   window_s: 604800                # how far back to look; a week tells nights and weekends
  #   token_file: prometheus.token    # or token_env, a variable; the token itself is never written here

# hpa:
#   file: hpa.yaml                    # the autoscaling/v2 HorizontalPodAutoscaler of today; it is never written to

# scaling:                            # needs traffic and objective.p99_ms
#   kept_share: 0.999                 # of the minutes must keep objective.p99_ms
#   metrics: [queue, rate, cpu]       # what the autoscaler may follow: queue, rate, latency, cpu
#   cores: 2                          # CPU cores that a replica requests; default: hardware.threads
#   delays:                           # in seconds; with `cluster`, those of a pod's start are measured unless given
#     scrape_s: 15                    # Prometheus looks this often
#     adapter_s: 30                   # the metrics adapter refreshes this often
#     scheduling_s: 2                 # until a new pod has a node
#     start_s: 30                     # pulling the image, loading and warming the model
#     readiness_s: 5                  # until traffic arrives
#     termination_s: 30               # a pod that is stopped is paid for this much longer

# cluster:                            # reads the HPA in use from a cluster, in place of `hpa`
#   context: infertune-reader         # of your kubeconfig, by name; `in-cluster` for a pod's service account
#   # kubeconfig: kubeconfig.yaml     # default: $KUBECONFIG, then ~/.kube/config
#   namespace: shop
#   hpa: my-model
#   apply: false                      # true: offer a plan, which a person then approves; default: recommend only
#   writer_context: infertune-writer  # may patch this one HPA; without one nothing is ever applied
#   allow_namespaces: [shop]          # where an approved plan may be applied
#   bounds:                           # what no plan may leave
#     min_replicas: 2
#     max_replicas: 20
#     daily_cost_usd: 50              # of maxReplicas for a whole day
#   verify_s: 600                     # how long to watch after applying; a breach is rolled back
#   cooldown_s: 1800                  # no second change of the same HPA within this time

# search:                             # default: everything that can run here
#   only: [openvino, quantization]    # runtimes and techniques; all others are left out
#   exclude: [pruning]
#   students:                         # what may learn from the model; default: smaller ones of its family
#     - torchvision.models:resnet18
#     - same@width=0.5                # the model's own architecture, narrower (or depth=0.5)
#   max_trials: 20

budget:
  time_s: 900                         # no new trial after this
  trial_s: 300                        # a single trial is killed after this
  # trial_memory_mb: 8000             # ... or when it takes more than this; default: 80 % of the machine's memory
  # tolerate_noise: true              # on a machine that others use too: wider intervals in place of UNSTABLE
"""


def write_template(path: Path, *, force: bool) -> None:
    """Write the template, and the JSON schema that editors use beside it.

    Raises:
        SpecError: the file is there already and `force` is not given.
        StorageError: the folder cannot be written.
    """
    import json

    from tools.spec import spec_schema

    if path.exists() and not force:
        raise SpecError("is there already.", where=str(path), fix="Give another name, or --force to overwrite it.")
    write_file(path, TEMPLATE)
    write_file(path.parent / "tuning.schema.json", json.dumps(spec_schema(), indent=2) + "\n")
