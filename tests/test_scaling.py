"""Replicas, the sentence, and the recommended HorizontalPodAutoscaler."""

import os
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tools.contracts import Interval
from tools.errors import SpecError, StorageError
from tools.scaling import capacity as rules
from tools.scaling.capacity import plan_replicas, queue_target, replicas_for, usable_rps
from tools.scaling.manifest import read_hpa, to_yaml
from tools.scaling.recommend import recommend, sentence
from tools.scaling.recommended_hpa import (
    QUEUE_METRIC,
    SCALE_DOWN,
    SCALE_UP,
    recommended_hpa,
    unified_diff,
    write_recommendation,
)
from tools.traffic import BUNDLED_DAY, Trace, bundled_day, constant, load_trace

BUNDLED_HPA = BUNDLED_DAY.parent / "hpa.yaml"

rates = st.floats(0, 1e6)
usable = st.floats(0.1, 1e5)


def around(value, spread=0.03):
    return Interval(value=value, low=value * (1 - spread), high=value * (1 + spread), n=30)


@st.composite
def traces(draw):
    rps = draw(st.lists(rates, min_size=2, max_size=40).filter(lambda r: max(r) > 1e-6))
    return Trace(source="made", seconds=tuple(60 * i for i in range(len(rps))), rps=tuple(rps))


def is_valid(text):
    """Validate against the Kubernetes API's own schema, unknown fields forbidden."""
    for version in ("1.34", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(yaml.safe_load(text), version, strict=True)
    return True


# --- capacity ---


def test_a_replica_is_planned_at_70_percent_of_the_low_end():
    assert usable_rps(Interval(value=120, low=100, high=140, n=5)) == pytest.approx(70)


@pytest.mark.parametrize("low", [0.0, -3.0, float("nan"), float("inf")])
def test_a_capacity_that_may_be_nothing_is_not_planned_with(low):
    with pytest.raises(ValueError, match=r"capacity\.low"):
        usable_rps(Interval(value=5, low=low, high=9, n=5))


@pytest.mark.parametrize("utilization", [0.0, 1.1, -0.5])
def test_a_utilization_is_a_share(utilization):
    with pytest.raises(ValueError, match="utilization"):
        usable_rps(around(100), utilization)


@pytest.mark.parametrize(
    ("rate", "usable", "replicas"),
    [(0, 10, 1), (1, 10, 1), (10, 10, 1), (10.1, 10, 2), (3 * 0.7, 0.7, 3), (30, 10, 3), (1e6, 50, 20_000)],
)
def test_replicas_for_a_rate(rate, usable, replicas):
    assert replicas_for(rate, usable) == replicas


@pytest.mark.parametrize(("rate", "usable"), [(-1, 10), (float("nan"), 10), (float("inf"), 10), (5, 0), (5, -1)])
def test_replicas_for_no_rate_or_no_capacity_are_refused(rate, usable):
    with pytest.raises(ValueError, match="rps must be"):
        replicas_for(rate, usable)


@given(a=rates, b=rates, usable=usable)
def test_a_higher_rate_never_takes_fewer_replicas(a, b, usable):
    low, high = sorted((a, b))
    assert replicas_for(low, usable) <= replicas_for(high, usable)


@given(rate=rates, a=usable, b=usable)
def test_a_higher_capacity_never_takes_more_replicas(rate, a, b):
    low, high = sorted((a, b))
    assert replicas_for(rate, high) <= replicas_for(rate, low)


@given(rate=rates, usable=usable)
def test_the_replicas_hold_the_rate_and_one_less_would_not(rate, usable):
    replicas = replicas_for(rate, usable)
    assert replicas * usable >= rate * (1 - 1e-9)
    assert replicas == 1 or (replicas - 1) * usable < rate


@given(trace=traces(), usable=usable)
def test_a_plan_is_ordered_and_holds_what_it_says(trace, usable):
    plan = plan_replicas(trace, usable)
    assert rules.MIN_REPLICAS <= plan.minimum <= plan.p95 <= plan.peak < plan.maximum
    enough = 1 - 1e-9
    assert plan.p95 * usable >= trace.quantile_rps(0.95) * enough
    assert plan.peak * usable >= trace.peak_rps * enough
    assert (plan.p95 - 1) * usable >= trace.mean_rps * enough, "survivors of a lost replica hold the mean"
    assert (plan.maximum - 1) * usable >= trace.peak_rps * enough, "at the peak, one may be lost"
    following = plan.following(trace)
    assert all(n * usable >= rate * enough for n, rate in zip(following, trace.rps, strict=True))
    assert min(following) >= plan.minimum
    assert max(following) <= plan.peak


@given(trace=traces(), a=usable, b=usable)
def test_a_faster_replica_never_takes_a_larger_plan(trace, a, b):
    slow, fast = (plan_replicas(trace, u) for u in sorted((a, b)))
    for level in ("minimum", "p95", "peak", "maximum"):
        assert getattr(fast, level) <= getattr(slow, level)


def test_the_quietest_hours_set_the_floor_of_a_large_service():
    trace = Trace(source="made", seconds=(0, 3600, 7200), rps=(1000, 5000, 2000))
    assert plan_replicas(trace, 100).minimum == 11  # ten hold the quietest hour, one may be lost


# --- queue target ---


def test_the_queue_target_is_littles_law_with_half_of_the_room():
    capacity = Interval(value=1200, low=1000, high=1400, n=9)
    assert queue_target(capacity, p99_ms=10, slo_ms=50) == 20  # 1000/s * 0.040 s = 40 waiting, half of it


@pytest.mark.parametrize(
    ("p99_ms", "slo_ms", "target"),
    [(50.0, 50.0, 1), (80.0, 50.0, 1), (49.9, 50.0, 1), (10.0, 60_000.0, 1000), (10.0, None, 30)],
    ids=["no room", "already late", "less than one request", "a very long SLO", "no SLO"],
)
def test_the_queue_target_stays_within_its_bounds(p99_ms, slo_ms, target):
    assert queue_target(around(1000), p99_ms=p99_ms, slo_ms=slo_ms) == target


@given(low=usable, p99_ms=st.floats(0.01, 1e4), slo_ms=st.floats(0.01, 1e4))
def test_the_last_request_of_a_full_queue_meets_the_slo(low, p99_ms, slo_ms):
    target = queue_target(Interval(value=low, low=low, high=low, n=3), p99_ms=p99_ms, slo_ms=slo_ms)
    assert 1 <= target <= 1000
    if target > 1:
        assert 1000 * target / low + p99_ms <= slo_ms * (1 + 1e-9)


def test_a_latency_that_was_not_measured_gives_no_queue_target():
    with pytest.raises(ValueError, match="p99_ms"):
        queue_target(around(1000), p99_ms=float("nan"), slo_ms=50)


# --- recommendation ---


def calmer_day():
    day = load_trace(BUNDLED_DAY)
    return day.model_copy(update={"rps": tuple(rate / 2.5 for rate in day.rps)})


def recommended(**changes):
    given_ = {
        "trace": calmer_day(),
        "capacity": around(1700),
        "p99_ms": 9.0,
        "slo_ms": 50.0,
        "price_per_hour_usd": 0.34,
        "baseline_capacity": around(75),
    }
    return recommend(**(given_ | changes))


def test_the_bundled_day_takes_a_handful_of_optimized_replicas_and_dozens_otherwise():
    summary = recommended(trace=load_trace(BUNDLED_DAY), capacity=around(3000))
    assert (summary.replicas_p95, summary.replicas_peak) == (2, 3)
    assert (summary.min_replicas, summary.max_replicas) == (2, 4)
    assert (summary.baseline_replicas_p95, summary.baseline_replicas_peak) == (39, 117)
    assert summary.usable_rps == pytest.approx(3000 * 0.97 * 0.7)
    assert summary.sentence == (
        "2 replicas hold 95 % of the traffic (by time), a 3rd takes the spikes; unoptimized, it would take 39 and 117."
    )
    assert summary.queue_target == 59


def test_the_daily_cost_follows_the_traffic_but_not_below_the_minimum():
    day = Trace(source="made", seconds=(0, 21_600, 43_200, 64_800), rps=(0, 100, 500, 1000))
    flat = Interval(value=200, low=200, high=200, n=3)  # 140 usable: 1, 1, 4 and 8 replicas
    summary = recommend(
        trace=day, capacity=flat, p99_ms=1.0, slo_ms=None, price_per_hour_usd=0.5, baseline_capacity=None
    )
    assert summary.min_replicas == 2
    assert summary.daily_cost_usd == pytest.approx(0.5 * 6 * (2 + 2 + 4 + 8))
    assert summary.baseline_daily_cost_usd is None
    assert summary.baseline_replicas_p95 is None


def test_the_baseline_costs_more_by_the_same_rules():
    summary = recommended()
    same = recommended(capacity=around(75))
    assert summary.baseline_daily_cost_usd == same.daily_cost_usd
    assert summary.daily_cost_usd < summary.baseline_daily_cost_usd
    assert summary.daily_cost_usd >= 0.34 * 24 * summary.min_replicas


@pytest.mark.parametrize(
    ("capacity", "baseline", "text"),
    [
        (4000, None, "2 replicas hold all of the traffic, spikes included."),
        (4000, 75, "2 replicas hold all of the traffic, spikes included; unoptimized, it would take 47."),
        (150, None, "8 replicas hold 95 % of the traffic (by time), 16 more take the spikes."),
    ],
)
def test_the_sentence_says_what_there_is_to_say(capacity, baseline, text):
    summary = recommended(capacity=around(capacity), baseline_capacity=baseline and around(baseline))
    assert summary.sentence == text


@pytest.mark.parametrize(("last", "ordinal"), [(3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")])
def test_the_last_replica_is_counted_in_english(last, ordinal):
    plan = rules.ReplicaPlan(usable_rps=1, p95=last - 1, peak=last, minimum=2, maximum=last + 1)
    assert f"a {ordinal} takes" in sentence(plan, None)


def test_notes_say_what_the_numbers_rest_on():
    plain = " ".join(recommended().notes)
    assert "until a load test confirms" in plain
    assert "covers" not in plain
    gappy = Trace(source="made", seconds=(0, 60, 120), rps=(1, 2, 3), notes=("A gap.",))
    assert recommended(trace=gappy).notes[0] == "A gap."
    assert "covers 0.1 h" in " ".join(recommended(trace=gappy).notes)
    assert "Without a latency SLO" in " ".join(recommended(slo_ms=None).notes)
    assert "there is no time to wait" in " ".join(recommended(p99_ms=60.0).notes)


def test_a_constant_rate_needs_no_spike_replicas():
    summary = recommended(trace=constant(400.0))
    assert summary.replicas_p95 == summary.replicas_peak == 2


# --- the HPA: building ---


@pytest.fixture
def hpa_file(tmp_path):
    """A copy of the bundled HPA, in a folder of its own."""
    return Path(shutil.copy(BUNDLED_HPA, _folder(tmp_path, "team") / "hpa.yaml"))


def _folder(parent, name):
    (parent / name).mkdir()
    return parent / name


def written(summary, hpa_file, tmp_path, **changes):
    return write_recommendation(
        summary, workload="resnet50", hpa_file=hpa_file, session_folder=tmp_path / "session", **changes
    )


def bounds(manifest):
    return manifest["spec"]["minReplicas"], manifest["spec"]["maxReplicas"]


def test_the_bundled_hpa_is_a_valid_one():
    assert is_valid(BUNDLED_HPA.read_text())
    assert bounds(read_hpa(BUNDLED_HPA).manifest) == (2, 40)


def test_only_bounds_queue_metric_and_behavior_change(hpa_file, tmp_path):
    before = yaml.safe_load(hpa_file.read_text())
    summary = written(recommended(), hpa_file, tmp_path)
    after = yaml.safe_load(Path(summary.hpa_yaml).read_text())
    assert is_valid(Path(summary.hpa_yaml).read_text())
    assert {k: v for k, v in after.items() if k != "spec"} == {k: v for k, v in before.items() if k != "spec"}
    assert after["spec"]["scaleTargetRef"] == before["spec"]["scaleTargetRef"]
    assert bounds(after) == (2, 4)
    queue, *others = after["spec"]["metrics"]
    assert others == before["spec"]["metrics"]
    assert queue == {
        "type": "Pods",
        "pods": {"metric": {"name": QUEUE_METRIC}, "target": {"type": "AverageValue", "averageValue": "33"}},
    }
    assert after["spec"]["behavior"] == {"scaleUp": SCALE_UP, "scaleDown": SCALE_DOWN}


def test_the_files_lie_beside_the_users_which_is_left_alone(hpa_file, tmp_path):
    original = hpa_file.read_bytes()
    summary = written(recommended(), hpa_file, tmp_path)
    assert summary.hpa_yaml == str(hpa_file.parent / "hpa.infertune.yaml")
    assert summary.hpa_diff_path == str(hpa_file.parent / "hpa.infertune.diff")
    assert Path(summary.hpa_diff_path).read_text() == summary.hpa_diff
    assert hpa_file.read_bytes() == original
    assert not (tmp_path / "session").exists()


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs the command `patch`")
def test_the_diff_shows_only_real_changes_and_applies(hpa_file, tmp_path):
    summary = written(recommended(), hpa_file, tmp_path)
    removed = [line for line in summary.hpa_diff.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert removed == ["-  maxReplicas: 40"]
    canonical = tmp_path / "canonical.yaml"
    canonical.write_text(to_yaml(read_hpa(hpa_file).manifest))
    subprocess.run(["patch", "-s", str(canonical), summary.hpa_diff_path], check=True)
    assert canonical.read_text() == Path(summary.hpa_yaml).read_text()


def test_a_recommendation_upon_the_recommended_file_changes_nothing(hpa_file, tmp_path):
    first = written(recommended(), hpa_file, tmp_path)
    again = written(recommended(), Path(first.hpa_yaml), tmp_path)
    assert again.hpa_diff == ""
    assert Path(again.hpa_yaml).read_text() == Path(first.hpa_yaml).read_text()
    assert again.hpa_yaml != first.hpa_yaml
    assert "already is as recommended" in " ".join(again.notes)


def test_an_earlier_queue_metric_gets_a_new_target_and_keeps_its_place_and_selector(hpa_file, tmp_path):
    before = yaml.safe_load(hpa_file.read_text())
    selector = {"matchLabels": {"model": "a"}}
    before["spec"]["metrics"].append(
        {
            "type": "Pods",
            "pods": {
                "metric": {"name": QUEUE_METRIC, "selector": selector},
                "target": {"type": "AverageValue", "averageValue": "500m"},
            },
        }
    )
    hpa_file.write_text(yaml.safe_dump(before))
    summary = written(recommended(), hpa_file, tmp_path)
    metrics = yaml.safe_load(Path(summary.hpa_yaml).read_text())["spec"]["metrics"]
    assert [m["type"] for m in metrics] == ["Resource", "Pods"]
    assert metrics[1]["pods"]["metric"]["selector"] == selector
    assert metrics[1]["pods"]["target"]["averageValue"] == "33"
    assert is_valid(Path(summary.hpa_yaml).read_text())


def test_without_an_hpa_a_complete_one_is_made_in_the_session_folder(tmp_path):
    summary = written(recommended(), None, tmp_path)
    text = Path(summary.hpa_yaml).read_text()
    assert is_valid(text)
    manifest = yaml.safe_load(text)
    assert manifest["metadata"] == {"name": "resnet50"}
    assert manifest["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "resnet50"}
    assert bounds(manifest) == (2, 4)
    assert [m["type"] for m in manifest["spec"]["metrics"]] == ["Pods", "Resource"]
    assert manifest["spec"]["metrics"][1]["resource"]["target"]["averageUtilization"] == 70
    assert Path(summary.hpa_yaml) == tmp_path / "session" / "hpa.infertune.yaml"
    assert summary.hpa_diff.startswith("--- /dev/null\n+++ hpa.infertune.yaml\n")
    assert "No HPA was given" in " ".join(summary.notes)


def test_what_cannot_be_written_beside_the_users_file_goes_to_the_session_folder(hpa_file, tmp_path):
    (hpa_file.parent / "hpa.infertune.yaml").mkdir()  # in the way, even of root
    summary = written(recommended(), hpa_file, tmp_path)
    assert Path(summary.hpa_yaml).parent == tmp_path / "session"
    assert Path(summary.hpa_diff_path).parent == tmp_path / "session"
    assert "beside yours it could not be" in summary.notes[-1]
    assert is_valid(Path(summary.hpa_yaml).read_text())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_left_alone(hpa_file, tmp_path):
    hpa_file.parent.chmod(0o555)
    try:
        summary = written(recommended(), hpa_file, tmp_path)
    finally:
        hpa_file.parent.chmod(0o755)
    assert Path(summary.hpa_yaml).parent == tmp_path / "session"


def test_a_session_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "session").write_text("a file")
    with pytest.raises(StorageError, match="session"):
        written(recommended(), None, tmp_path)


def test_fields_of_theirs_in_the_behavior_stay_and_a_disabled_scale_down_is_mentioned(hpa_file, tmp_path):
    before = yaml.safe_load(hpa_file.read_text())
    before["spec"]["behavior"] = {"scaleUp": {"tolerance": "0.05"}, "scaleDown": {"selectPolicy": "Disabled"}}
    before["spec"]["minReplicas"] = 6
    hpa_file.write_text(yaml.safe_dump(before))
    summary = written(recommended(), hpa_file, tmp_path)
    after = yaml.safe_load(Path(summary.hpa_yaml).read_text())
    assert after["spec"]["behavior"] == {"scaleUp": {"tolerance": "0.05", **SCALE_UP}, "scaleDown": SCALE_DOWN}
    assert is_valid(Path(summary.hpa_yaml).read_text())
    notes = " ".join(summary.notes)
    assert "Scaling down was disabled" in notes
    assert "minReplicas falls from 6 to 2" in notes
    assert "maxReplicas falls from 40 to 4: more than 6,596 requests a second" in notes
    assert "CPU target of 80 % is kept" in notes


@given(low=st.integers(2, 500), more=st.integers(1, 500), queue=st.integers(1, 1000), fresh=st.booleans())
def test_every_hpa_is_valid_differs_as_its_diff_says_and_is_stable(low, more, queue, fresh):
    before = None if fresh else read_hpa(BUNDLED_HPA).manifest
    wanted = {"min_replicas": low, "max_replicas": low + more, "queue_target": queue, "cpu_percent": 70}
    after = recommended_hpa(before, workload="resnet50", **wanted)
    kubernetes_validate.validate(after, "1.34", strict=True)
    assert recommended_hpa(after, workload="resnet50", **wanted) == after
    assert unified_diff(after, after, before_name="a", stem="a") == ""
    added = [x[1:] for x in unified_diff(None, after, before_name="a", stem="a").splitlines()[3:]]
    assert yaml.safe_load("\n".join(added)) == after
    assert before is None or before == read_hpa(BUNDLED_HPA).manifest, "the input is left as it was"


# --- the HPA: reading ---

GOOD = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold exactly one HorizontalPodAutoscaler, not 0 (found: no document)"),
        ("just text", "not 0 (found: str)"),
        ("kind: Deployment\n", "not 0 (found: Deployment)"),
        (f"{GOOD}---\n{GOOD}", "not 2 (found: HorizontalPodAutoscaler, HorizontalPodAutoscaler)"),
        ("a: [1, 2", "is not valid YAML"),
        (GOOD.replace("web", "{{ .Values.name }}"), "render it first"),
        (GOOD + "  maxReplicas: 6\n", "the key `maxReplicas` occurs twice"),
        (GOOD + "  x: !!binary aGVsbG8=\n", "is no JSON"),
        (GOOD + "  x: &a [*a]\n", "is no JSON"),
        (GOOD + "  x: !!python/object:os.system {}\n", "is not valid YAML"),
        (GOOD.replace("/v2", "/v1"), "is of apiVersion autoscaling/v1; only autoscaling/v2"),
        (GOOD.replace("/v2", "/v2beta2"), "kubectl convert -f hpa.yaml --output-version autoscaling/v2"),
        (GOOD.replace("apiVersion: autoscaling/v2\n", ""), "has no apiVersion; only autoscaling/v2"),
        (GOOD.replace("metadata: {name: web}", "metadata: {}"), "`metadata.name` is missing"),
        (GOOD.replace("name: web}\nspec", "name: 5}\nspec"), "`metadata.name` is 5, not a text"),
        ("\n".join(GOOD.splitlines()[:3]), "`spec.scaleTargetRef.kind` is missing"),
        (GOOD.replace("kind: Deployment, name: web", "kind: Deployment"), "`spec.scaleTargetRef.name` is missing"),
        (GOOD + "  metrics: {type: Pods}\n", "`spec.metrics` must be a list"),
        (GOOD + "  metrics: [cpu]\n", "`spec.metrics` must be a list"),
        (GOOD + "  behavior: fast\n", "`spec.behavior` must be a mapping"),
        (GOOD + "  behavior: {scaleUp: fast}\n", "`spec.behavior` must be a mapping"),
    ],
)
def test_an_hpa_that_cannot_be_used_says_why(tmp_path, text, message):
    path = tmp_path / "hpa.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_hpa(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_an_hpa_that_is_not_there_or_not_text_says_so(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        read_hpa(tmp_path / "hpa.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_hpa(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        read_hpa(tmp_path / "binary.yaml")


def test_an_unusable_hpa_is_not_written_about(tmp_path):
    path = tmp_path / "hpa.yaml"
    path.write_text("kind: Deployment\n")
    with pytest.raises(SpecError):
        written(recommended(), path, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["hpa.yaml"]


def test_other_objects_and_comments_are_noted_and_empty_documents_are_nothing(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(f"---\n{GOOD}---\nkind: Service # theirs\n---\n")
    hpa = read_hpa(path)
    assert hpa.manifest["metadata"]["name"] == "web"
    assert len(hpa.notes) == 2
    assert "1 other object(s)" in hpa.notes[0]
    assert "Comments" in hpa.notes[1]
    path.write_text(GOOD)
    assert read_hpa(path).notes == ()


def test_what_the_server_keeps_is_left_out_and_what_looks_like_a_date_stays_text(tmp_path):
    path = tmp_path / "hpa.yaml"
    path.write_text(
        GOOD.replace(
            "metadata: {name: web}",
            "metadata:\n  name: web\n  uid: a-b\n  resourceVersion: '7'\n  creationTimestamp: 2026-01-02T03:04:05Z\n"
            "  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: '{}'\n    reviewed: 2026-01-02",
        )
        + "status: {currentReplicas: 3}\n"
    )
    hpa = read_hpa(path)
    assert hpa.manifest["metadata"] == {"name": "web", "annotations": {"reviewed": "2026-01-02"}}
    assert "status" not in hpa.manifest
    assert hpa.notes == ("Status and other fields that the API server keeps were left out.",)
    assert read_hpa(path).manifest == yaml.safe_load(to_yaml(hpa.manifest))


def test_anchors_are_written_out(tmp_path):
    path = tmp_path / "hpa.yaml"
    path.write_text(GOOD.replace("metadata: {name: web}", "metadata: {name: web, labels: &l {a: b}, annotations: *l}"))
    summary = written(recommended(), path, tmp_path)
    text = Path(summary.hpa_yaml).read_text()
    assert "&" not in text
    assert is_valid(text)


def test_the_trace_of_the_demo_is_the_one_in_the_summary():
    assert recommended(trace=load_trace(BUNDLED_DAY)).traffic.mean_rps == bundled_day().mean_rps
