"""A realistic finished session: ResNet-50 on a two-core machine, twelve candidates, a day of traffic."""

from __future__ import annotations

import math
from typing import Any

from tools.contracts import (
    ArtifactRef,
    BatchPoint,
    Decision,
    EdgeCase,
    EndToEnd,
    Gate,
    Hardware,
    Interval,
    Latency,
    LayerProfile,
    LayerSensitivity,
    ModelFormat,
    Option,
    Precision,
    ProfileResult,
    Recipe,
    Roofline,
    Step,
    Verdict,
    digest_of,
)
from tools.result import (
    AdviceSummary,
    BatchRecommendation,
    BuildSummary,
    Configuration,
    Margin,
    MlflowRef,
    Ratio,
    ScalingSummary,
    Seconds,
    SessionResult,
    TrafficSummary,
    TrialSummary,
)
from tools.spec import Objective

PRICE_USD = 0.0832
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BASELINE_ACCURACY = 0.9816
FLOPS = 6.7e8
PARAMETERS = 23_528_522
HPA_DIFF = """\
--- shop/resnet50 (current)
+++ shop/resnet50 (recommended)
@@ -7,12 +7,19 @@
   scaleTargetRef:
     apiVersion: apps/v1
     kind: Deployment
     name: resnet50
-  minReplicas: 6
-  maxReplicas: 40
+  minReplicas: 2
+  maxReplicas: 8
   metrics:
-  - type: Resource
-    resource:
-      name: cpu
+  - type: Pods
+    pods:
+      metric:
+        name: infertune_queue_depth
       target:
-        type: Utilization
-        averageUtilization: 60
+        type: AverageValue
+        averageValue: "12"
+  behavior:
+    scaleDown:
+      stabilizationWindowSeconds: 300
"""


def interval(value: float, spread: float = 0.01, n: int = 1200) -> Interval:
    return Interval(value=value, low=value * (1 - spread), high=value * (1 + spread), n=n)


def point(batch_size: int, p50_ms: float, *, memory_mb: float, stable: bool = True) -> BatchPoint:
    n = 1200 if batch_size < 16 else 400
    mean_ms = p50_ms * 1.015
    return BatchPoint(
        batch_size=batch_size,
        latency_ms=Latency(
            p50=interval(p50_ms, 0.008, n), p95=interval(p50_ms * 1.09, 0.015, n), p99=interval(p50_ms * 1.19, 0.04, n)
        ),
        throughput_rps=interval(1000 * batch_size / mean_ms, 0.01, n),
        peak_memory_mb=memory_mb + 1.7 * batch_size,
        mean_ms=mean_ms,
        stable=stable,
    )


def curve(p50_ms: float, peak_rps: float, *, memory_mb: float) -> tuple[BatchPoint, ...]:
    """Batch latency that tends to `batch / peak_rps` and is `p50_ms` at batch 1."""
    fixed_ms = max(p50_ms - 1000 / peak_rps, 0.0)
    return tuple(point(b, fixed_ms + 1000 * b / peak_rps, memory_mb=memory_mb) for b in BATCHES)


def recipe(runtime: str, precision: Precision, *steps: str, **settings: Any) -> Recipe:
    return Recipe(
        steps=tuple(Step(transform=s) for s in steps), runtime=runtime, precision=precision, settings=settings
    )


def artifact(definition: Recipe, size_mb: float) -> ArtifactRef:
    formats = {"eager": ModelFormat.TORCH, "openvino": ModelFormat.OPENVINO, "torchscript": ModelFormat.TORCHSCRIPT}
    return ArtifactRef(
        digest=definition.digest,
        directory=f"/home/ada/shop/.infertune/artifacts/{definition.digest}",
        format=formats.get(definition.runtime, ModelFormat.ONNX),
        precision=definition.precision,
        size_mb=size_mb,
    )


def trial(
    definition: Recipe,
    points: tuple[BatchPoint, ...],
    *,
    drop: float,
    size_mb: float,
    seconds: float,
    **more: Any,
) -> TrialSummary:
    return TrialSummary(
        recipe=definition.name,
        definition=definition,
        outcome=more.pop("outcome", "measured"),
        evidence=(digest_of(definition.name), digest_of(definition.name + "sweep")),
        points=points,
        cost_per_1000_usd={p.batch_size: p.throughput_rps.inverse(PRICE_USD / 3.6) for p in points},
        accuracy=BASELINE_ACCURACY - drop,
        accuracy_drop=Interval(value=drop, low=drop - 0.0034, high=drop + 0.0034, n=597),
        output_difference=None if drop == 0 else 0.04 + drop,
        size_mb=size_mb,
        seconds=seconds,
        variant=definition.variant,
        flops=more.pop("flops", FLOPS),
        parameters=more.pop("parameters", PARAMETERS),
        **more,
    )


def failed(definition: Recipe, outcome: str, reason: str, seconds: float) -> TrialSummary:
    return TrialSummary(
        recipe=definition.name,
        definition=definition,
        outcome=outcome,
        reason=reason,
        evidence=(digest_of(definition.name),),
        seconds=seconds,
    )


BASELINE = recipe("eager", Precision.FP32)
BEST = recipe("openvino", Precision.INT8_STATIC, "fuse", "quantize")


STUDENT = Recipe(
    steps=(
        Step(transform="distill", settings={"student": "resnet18@width=0.5", "max_s": 60}),
        Step(transform="export-onnx"),
        Step(transform="convert-openvino"),
        Step(transform="quantize-nncf"),
    ),
    runtime="openvino",
    precision=Precision.INT8_STATIC,
)
PRUNED = Recipe(
    steps=(
        Step(transform="prune-channels", settings={"ratio": 0.5}),
        Step(transform="finetune", settings={"max_s": 60}),
        Step(transform="export-onnx"),
        Step(transform="convert-openvino"),
        Step(transform="quantize-nncf"),
    ),
    runtime="openvino",
    precision=Precision.INT8_STATIC,
)


def trials() -> tuple[TrialSummary, ...]:
    return (
        trial(BASELINE, curve(13.0, 500, memory_mb=492), drop=0, size_mb=94.3, seconds=21.4, feasible=True),
        trial(
            recipe("torchscript", Precision.FP32, "fuse"),
            curve(10.4, 540, memory_mb=488),
            drop=0,
            size_mb=94.6,
            seconds=19.8,
            feasible=True,
        ),
        trial(
            recipe("onnxruntime", Precision.FP32, "fuse"),
            curve(4.7, 615, memory_mb=341),
            drop=0,
            size_mb=94.1,
            seconds=14.2,
            feasible=True,
        ),
        trial(
            recipe("openvino", Precision.FP32, "fuse"),
            curve(3.79, 626, memory_mb=402),
            drop=0,
            size_mb=94.2,
            seconds=15.0,
            feasible=True,
        ),
        trial(
            recipe("openvino", Precision.BF16, "fuse"),
            curve(1.70, 1214, memory_mb=365),
            drop=0,
            size_mb=47.2,
            seconds=13.1,
            feasible=True,
        ),
        trial(
            recipe("onnxruntime", Precision.INT8_STATIC, "fuse", "quantize"),
            curve(1.14, 2042, memory_mb=248),
            drop=0.0017,
            size_mb=23.9,
            seconds=12.6,
            feasible=True,
        ),
        trial(
            BEST,
            curve(1.05, 2540, memory_mb=262),
            drop=0.0,
            size_mb=24.1,
            seconds=17.9,
            feasible=True,
            chosen=True,
        ),
        trial(
            PRUNED,
            curve(0.71, 3480, memory_mb=221),
            drop=0.0235,
            size_mb=6.2,
            seconds=41.3,
            flops=1.7e8,
            parameters=5_916_234,
            nonzero_parameters=5_914_001,
            sparsity=0.0004,
        ),
        trial(
            STUDENT,
            curve(0.45, 5900, memory_mb=205)[:1],
            drop=0.0611,
            size_mb=2.9,
            seconds=9.4,
            flops=3.9e7,
            parameters=2_802_346,
            given_up="its top1 clearly drops too far: 128 of 597 held-out items were scored",
        ),
        trial(
            recipe("onnxruntime", Precision.INT8_DYNAMIC, "quantize"),
            curve(8.9, 190, memory_mb=270),
            drop=0.0034,
            size_mb=24.0,
            seconds=16.2,
            outcome="unstable",
            reason="the interval of the median stayed wider than 2 % after 20 s",
        ),
        failed(
            recipe("compiled", Precision.INT8_STATIC, "quantize"),
            "failed",
            "prepare_pt2e: Input partition has more than one output node",
            6.4,
        ),
        failed(recipe("tensorrt", Precision.FP16, "export"), "timed_out", "killed after 300 s while building", 300.0),
    )


def configuration(source: TrialSummary, batch_size: int) -> Configuration:
    at = next(p for p in source.points if p.batch_size == batch_size)
    assert source.accuracy is not None
    assert source.accuracy_drop is not None
    assert source.size_mb is not None
    ref = artifact(source.definition, source.size_mb)
    return Configuration(
        recipe=source.recipe,
        definition=source.definition,
        runtime=source.definition.runtime,
        batch_size=batch_size,
        latency_ms=at.latency_ms,
        throughput_rps=at.throughput_rps.value,
        accuracy=source.accuracy,
        accuracy_drop=source.accuracy_drop,
        size_mb=source.size_mb,
        memory_mb=at.peak_memory_mb,
        cost_per_1000_usd=source.cost_per_1000_usd[batch_size].value,
        artifact=ref.directory,
        artifact_ref=ref,
        intervals={
            "throughput_rps": at.throughput_rps,
            "accuracy": Interval(value=source.accuracy, low=0.9683, high=0.9896, n=597),
            "cost_per_1000_usd": source.cost_per_1000_usd[batch_size],
        },
    )


def profile() -> ProfileResult:
    stages = {1: 3, 2: 4, 3: 6, 4: 3}
    names = ["conv1", *(f"layer{s}.{b}.conv{c}" for s, n in stages.items() for b in range(n) for c in (1, 2, 3)), "fc"]
    weights = [(1.9 if "conv2" in n else 1.0) + 0.35 * math.sin(i * 1.7) for i, n in enumerate(names)]
    total = sum(weights) / 0.86
    layers = [
        LayerProfile(
            path=name,
            operator="Linear" if name == "fc" else "Conv2d",
            ms=12.6 * w / total,
            share=w / total,
            flops=2.3e8 * w,
            bytes_moved=2.1e6 * w,
            gflops_per_s=2.3e8 * w / (12.6 * w / total) / 1e6,
        )
        for name, w in zip(names, weights, strict=True)
    ]
    layers += [
        LayerProfile(
            path="layer1.0.bn3",
            operator="BatchNorm2d",
            ms=0.32,
            share=0.0254,
            flops=1.6e6,
            bytes_moved=6.4e6,
            gflops_per_s=5.0,
        ),
        LayerProfile(
            path="relu", operator="ReLU", ms=0.44, share=0.035, flops=8e5, bytes_moved=6.4e6, gflops_per_s=1.8
        ),
    ]
    layers.sort(key=lambda layer: -layer.share)
    other = LayerProfile(path="(other)", operator="other", ms=1.0, share=0.079, flops=0, bytes_moved=0, gflops_per_s=0)
    return ProfileResult(
        layers=(*layers, other),
        forward_ms=12.6,
        flops=FLOPS,
        share_of_peak=0.31,
        roofline=Roofline(
            fp32_gflops=171.0,
            bf16_gflops=602.0,
            int8_gops=None,
            memory_gb_per_s=18.4,
            notes=("int8: no matrix product of this library runs in int8 here",),
        ),
        end_to_end=EndToEnd(preprocess_ms=0.61, transfer_ms=0.02, forward_ms=12.6, postprocess_ms=0.04),
        operators={
            "convolution": 0.842,
            "normalization": 0.0254,
            "activation": 0.035,
            "linear": 0.0186,
            "other": 0.079,
        },
        bottleneck="Convolutions take 84 % of the forward pass at 31 % of the FP32 peak: a fused graph and lower "
        "precision usually help most.",
        chrome_trace="/home/ada/shop/.infertune/sessions/20261122-041502-resnet50/trace.json",
    )


def decisions() -> tuple[Decision, ...]:
    def option(name: str, rejected: str | None = None, **facts: Any) -> Option:
        return Option(name=name, evidence=(digest_of(name),), facts=facts, rejected_because=rejected)

    def planned(identity: str, node: str, reason: str, *options: Option) -> Decision:
        return Decision(
            id=identity,
            node="planner",
            question="What next?",
            options=options,
            chosen=node,
            rule="the float runtimes first; then the largest expected improvement per second",
            reason=reason,
        )

    def expected(name: str, gain: float, sd: float, chance: float, seconds: float) -> Option:
        return Option(name=name, facts={"expected_gain": gain, "sd": sd, "chance": chance, "seconds": seconds})

    return (
        Decision(
            id="d1",
            node="profiler",
            question="What limits the model as it is?",
            options=(option("compute", share_of_peak=0.31), option("memory", "18 % of the bandwidth is in use")),
            chosen="compute",
            rule="the resource whose roof is nearest",
            reason="Convolutions take 84 % of the time, far from the bandwidth limit.",
        ),
        planned(
            "d1p",
            "quantization_evaluation",
            "openvino int8-static is expected to be 7.4 to 16 times as good as the model as given",
            Option(name="openvino int8-static"),
            expected("distill resnet18@width=0.5, openvino int8-static", 2.9, 0.6, 0.74, 61.0),
            expected("prune-channels ratio=0.5, finetune, openvino bf16", 1.9, 0.5, 0.12, 75.0),
            Option(name="openvino fp16", rejected_because="this CPU has BF16 too"),
        ),
        Decision(
            id="d2",
            node="quantization_evaluation",
            question="Which precision?",
            options=(
                option("openvino bf16", "slower than int8 by more than the noise", p50_ms=1.70, drop_points=0.0),
                option(
                    "onnxruntime int8-static",
                    "1.09x [1.06, 1.11] slower than the chosen one",
                    p50_ms=1.14,
                    drop_points=0.17,
                ),
                option("openvino int8-static", p50_ms=1.05, throughput_rps=2540.0, drop_points=0.0),
                option("compiled int8-static", "failed: Input partition has more than one output node"),
            ),
            chosen="openvino int8-static",
            rule="the fastest that keeps the accuracy budget and beats the best float runtime by more than the noise",
            reason="It is 1.62x [1.59, 1.65] faster than openvino bf16, and no item changed for the worse.",
        ),
        Decision(
            id="d3",
            node="compression_evaluation",
            question="Is pruning worth its accuracy?",
            options=(
                option("keep the full network", p50_ms=1.05),
                option("prune half of the channels", "loses 2.35 points, the budget is 1.00", p50_ms=0.71),
            ),
            chosen="keep the full network",
            rule="no candidate over the accuracy budget",
            reason="Pruning half of the channels loses 2.35 points where 1.00 are allowed.",
        ),
        Decision(
            id="d4",
            node="batch_tuning",
            question="Which batch size under the SLO?",
            options=(
                option("batch 16", p99_ms=8.28, throughput_rps=2270.0),
                option(
                    "batch 32",
                    "p99 of 16.4 ms, twice, is over the limit of 25.0 ms",
                    p99_ms=15.8,
                    throughput_rps=2380.0,
                ),
                option("batch 64", "p99 of 32.0 ms is over the limit of 25.0 ms", p99_ms=30.8),
            ),
            chosen="batch 16",
            rule="the cheapest whose p99, doubled for waiting, lies under the limit",
            reason="Its p99 stays 7.8 ms below the limit even behind another batch.",
        ),
        planned("d4p", "scaling_recommendation", "no candidate is left that could well be better by 3%"),
        Decision(
            id="d5",
            node="approval",
            question="Apply the recommended autoscaler?",
            options=(option("apply"), option("write the patch only")),
            chosen="write the patch only",
            rule="recommend by default",
            reason="No cluster was named, so the patch was written as a file.",
            by="person",
        ),
    )


def builds() -> tuple[BuildSummary, ...]:
    def build(*steps: str, seconds: float, **told: Any) -> BuildSummary:
        outcome = told.pop("outcome", "measured")
        return BuildSummary(
            steps=steps,
            transform=steps[-1].partition(" ")[0],
            outcome=outcome,
            seconds=seconds,
            evidence=digest_of(list(steps)),
            **told,
        )

    exported = ("export-onnx", "convert-openvino")
    return (
        build("export-onnx", seconds=5.2, size_mb=94.1),
        build(*exported, seconds=1.9, size_mb=94.2),
        build(
            *exported,
            "quantize-nncf",
            seconds=5.8,
            size_mb=24.1,
            facts={"nodes_before": 125, "nodes_after": 340, "quantized_layers": 54},
        ),
        build(
            *exported,
            "quantize-mixed max_drop=0.01",
            seconds=38.0,
            size_mb=30.9,
            facts={"layers_float": 2, "layers_total": 54, "nodes_before": 125, "nodes_after": 331},
            notes=("2 of 54 layers stay in float: top1 drops by 0.004, by 0.021 in full INT8.",),
            sensitivity=tuple(
                LayerSensitivity(layer=f"layer{i}.conv", drop=0.02 / i, float_ms=0.03 * i, kept_float=i in (1, 30))
                for i in range(1, 55)
            ),
        ),
        build(
            "prune-channels ratio=0.5",
            seconds=3.1,
            size_mb=23.7,
            facts={
                "parameters": 5_916_234,
                "parameters_before": PARAMETERS,
                "flops": 1.7e8,
                "flops_before": FLOPS,
                "sparsity": 0.0004,
            },
        ),
        build(
            "prune-channels ratio=0.5",
            "finetune",
            seconds=58.4,
            size_mb=23.7,
            facts={"parameters": 5_916_234, "flops": 1.7e8, "epochs": 12, "agreement": 0.9583, "sparsity": 0.0004},
            notes=("Learnt from 1080 items in 12 epochs.",),
        ),
        build(
            "distill resnet18@width=0.5",
            seconds=59.7,
            size_mb=11.3,
            facts={"parameters": 2_802_346, "flops": 3.9e7, "epochs": 20, "agreement": 0.9417},
        ),
        build(
            "quantize-pt2e",
            seconds=6.4,
            outcome="failed",
            reason="failed while applying quantize-pt2e: Input partition has more than one output node",
        ),
    )


def left_out() -> tuple[Option, ...]:
    return (
        Option(
            name="prune-channels ratio=0.5, finetune, openvino bf16",
            facts={"expected_gain": 1.9, "sd": 0.5, "chance": 0.12, "seconds": 75.0},
            rejected_because="others promised more for the time that it takes",
        ),
        Option(name="openvino fp16", rejected_because="this CPU has BF16 too"),
    )


def traffic() -> TrafficSummary:
    series = tuple(
        (300.0 * i, 3800 + 3300 * math.sin((i - 96) / 288 * 2 * math.pi) + 700 * math.sin(i / 7) ** 2)
        for i in range(288)
    )
    rates = sorted(r for _, r in series)
    return TrafficSummary(
        source="recorded trace, day.csv",
        p50_rps=rates[144],
        p95_rps=rates[273],
        peak_rps=rates[-1],
        mean_rps=sum(rates) / len(rates),
        seconds=86400,
        series=series,
    )


def scaling() -> ScalingSummary:
    return ScalingSummary(
        traffic=traffic(),
        capacity_rps=interval(2270, 0.02),
        usable_rps=1557.0,
        utilization=0.7,
        replicas_p95=5,
        replicas_peak=5,
        min_replicas=2,
        max_replicas=8,
        baseline_replicas_p95=142,
        baseline_replicas_peak=149,
        daily_cost_usd=6.11,
        baseline_daily_cost_usd=157.4,
        queue_target=12,
        sentence="Five replicas hold the peak of 7,750 requests per second; the model as given would need 149.",
        hpa_yaml="/home/ada/shop/.infertune/sessions/20261122-041502-resnet50/hpa.yaml",
        hpa_diff_path="/home/ada/shop/.infertune/sessions/20261122-041502-resnet50/hpa.diff",
        hpa_diff=HPA_DIFF,
        notes=("An estimate from single-replica measurements until a load test confirms it.",),
    )


def gates() -> tuple[Gate, ...]:
    return (
        Gate(
            stage="before optimizing",
            name="the baseline is stable",
            passed=True,
            detail="The median of 1,200 runs is known to 0.8 %.",
        ),
        Gate(
            stage="before optimizing",
            name="the metric is reproducible",
            passed=True,
            detail="Two evaluations gave 98.16 % twice.",
        ),
        Gate(
            stage="after optimizing",
            name="accuracy within the budget",
            passed=True,
            detail="Drop of +0.00 points, upper end +0.34, budget 1.00.",
        ),
        Gate(
            stage="after optimizing",
            name="unusual inputs are answered",
            passed=False,
            detail="1 of 4 unusual inputs was answered with NaN.",
        ),
        Gate(
            stage="before deploying",
            name="load test at the peak",
            passed=False,
            detail="No load test was run; `infertune loadtest` runs one.",
        ),
    )


def advice() -> AdviceSummary:
    return AdviceSummary(
        model="small-model at llm.example.internal",
        asked=3,
        refused=("The answer named option 9 of 4.",),
        tried=("onnxruntime int8-dynamic",),
        influence="1 of 9 candidates was tried on its advice; none of them is the one that is recommended.",
        text="openvino int8-static at batch 16 costs 29.9 times less per request, with a p99 of 8.3 ms.",
        seconds=41.0,
        tokens_in=5210,
        tokens_out=388,
        estimated=False,
        evidence=("e0000000000adv01", "e0000000000adv02"),
    )


def sample_result(**updates: Any) -> SessionResult:
    """A session that kept its promises, with every section filled."""
    tried = trials()
    baseline = configuration(tried[0], 1)
    best = configuration(next(t for t in tried if t.chosen), 16)
    home = "/home/ada/shop/.infertune/sessions/20261122-041502-resnet50"
    result = SessionResult(
        session="20261122-041502-resnet50",
        workload="resnet50",
        workload_digest=digest_of("resnet50"),
        created="2026-11-22T04:15:02Z",
        verdict=Verdict.MET,
        summary="openvino int8-static at batch 16 costs 29.9x less per request than the model as given, "
        "with a p99 of 8.3 ms where 25 ms are allowed and no measurable loss of accuracy.",
        objective=Objective(minimize="cost", p99_ms=25.0, max_accuracy_drop=0.01, max_memory_mb=1000.0),
        metric="top1",
        higher_is_better=True,
        price_per_hour_usd=PRICE_USD,
        hardware=Hardware(
            cpu="AMD EPYC 9R14",
            architecture="x86_64",
            cores=2,
            memory_mb=8054.0,
            flags=("avx2", "avx512f", "avx512_bf16", "avx512_vnni"),
        ),
        versions={"torch": "2.14.1", "onnxruntime": "1.31.0", "openvino": "2026.4.0", "nncf": "3.4.0"},
        seconds=Seconds(total=548.3, trials=478.2, training=61.0, overhead=9.1),
        baseline=baseline,
        best=best,
        ratio=Ratio(
            p50=Interval(value=12.4, low=12.1, high=12.7, n=60),
            throughput=Interval(value=29.9, low=29.3, high=30.5, n=60),
            cost=Interval(value=29.9, low=29.3, high=30.5, n=60),
        ),
        margins=(
            Margin(constraint="p99_ms", limit=25.0, value=17.2, margin=7.8, unit="ms"),
            Margin(constraint="max_accuracy_drop", limit=0.01, value=0.0, margin=0.01, unit="top1"),
            Margin(constraint="max_memory_mb", limit=1000.0, value=289.2, margin=710.8, unit="MB"),
        ),
        trials=tried,
        builds=builds(),
        left_out=left_out(),
        decisions=decisions(),
        profile=profile(),
        batch=BatchRecommendation(
            sla_batch=16,
            sla_reason="the cheapest whose p99 stays under 25 ms, even behind another batch",
            job_batch=64,
            job_reason="the highest throughput measured",
        ),
        edge_cases=(
            EdgeCase(name="all zeros", passed=True, detail="finite, same class as the baseline"),
            EdgeCase(name="largest finite values", passed=False, detail="the candidate answered NaN, the baseline too"),
            EdgeCase(name="one item in a batch of 16", passed=True, detail="same answer as alone"),
            EdgeCase(name="noise", passed=True, detail="597 of 600 classes agree"),
        ),
        scaling=scaling(),
        gates=gates(),
        advice=advice(),
        notes=("600 of 1,797 items calibrate the quantization and are held out from the evaluation.",),
        files={
            "report": f"{home}/report.html",
            "journal": f"{home}/journal.jsonl",
            "result": f"{home}/result.json",
            "artifact": best.artifact,
            "trace": f"{home}/trace.json",
        },
        mlflow=MlflowRef(
            tracking_uri="sqlite:////home/ada/shop/.infertune/mlflow.db",
            run_id="5f2c0d9a7b1e4c3f8a6d2e1b0c9f8e7d",
            model_name="resnet50",
            model_version="3",
        ),
    )
    return result.model_copy(update=updates)


def empty_result(verdict: Verdict = Verdict.INTERRUPTED) -> SessionResult:
    """A session that ended before anything was measured."""
    return sample_result(
        verdict=verdict,
        summary="Nothing was measured before the session ended.",
        baseline=None,
        best=None,
        ratio=None,
        margins=(),
        trials=(),
        builds=(),
        left_out=(),
        decisions=(),
        profile=None,
        batch=None,
        edge_cases=(),
        scaling=None,
        gates=(),
        advice=None,
        notes=(),
        files={},
        mlflow=None,
    )
