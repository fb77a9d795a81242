"""What the checklist says of scaling and watching, and how long loading took: true sentences, closed by evidence."""

from typing import get_args

import pytest
from recorded_support import EAGER, view
from sample_result import sample_result, scaling
from tests_support import measured_trial, spec

from tools.cluster.events import EventKind
from tools.contracts import Measured
from tools.contracts.recommendation import Effort, Judged, Recommendation, Shortfall, StaticNeed
from tools.contracts.scaling import DayOutcome, ScalingOption
from tools.gates import AUTOSCALER, autoscaler, gates
from tools.result import PlanEvent, PlanSummary, Seconds, SessionResult
from tools.summary import summarize

WEEK = 10_080
NAME = "requests_per_second 500 per pod, 2 to 9, down in 300 s"


def option(missed=4):
    outcome = DayOutcome(
        day="the recorded traffic",
        minutes=WEEK,
        missed_minutes=missed,
        worst_p99_ms=61.0,
        replica_hours=400.0,
        cost_usd=40.0,
        scalings=90,
        reversals=0,
        peak_replicas=7,
        mean_replicas=2.4,
        requests=1e6,
        served=1e6,
        refused=0.0,
        waiting_at_end=0.0,
    )
    setting = {"minReplicas": 2, "maxReplicas": 9, "metrics": []}
    return ScalingOption(name=NAME, spec=setting, outcomes=(outcome,))


def searched(*, chosen):
    """A scaling summary whose search found something, or nothing that keeps every promise."""
    miss = Shortfall(promise="slo", asked=10, got=41, sentence="misses the SLO in 41 minutes of the week (10 allowed)")
    found = Recommendation(
        slo_ms=50.0,
        kept_share=0.999,
        minutes=WEEK,
        chosen=option() if chosen else None,
        today=None,
        closest=None if chosen else Judged(option=option(41), shortfalls=(miss,)),
        options=(option(),),
        static=StaticNeed(p95=2, peak=3),
        sentence="2 replicas hold 95 % of the traffic.",
        notes=(),
        effort=Effort(
            settings=1,
            failed_early=0,
            too_costly=0,
            busiest_day_runs=1,
            recorded_runs=1,
            harder_runs=3,
            processes=1,
            seconds=1.0,
        ),
    )
    return scaling().model_copy(update={"recommendation": found, "evidence": ("e1", "e2")})


def plan(state, why="p99 was 80 ms where 50 ms are promised."):
    return PlanSummary(
        digest="0123456789abcdef" * 4,
        state=state,
        hpa="shop/resnet50",
        context="reader",
        why="The queue tells sooner.",
        expires="2026-11-23T00:00:00+00:00",
        diff="",
        events=(PlanEvent(kind=state, at="2026-11-22T00:00:00+00:00", by="infertune", why=why),),
    )


def test_a_setting_that_keeps_every_promise_closes_the_gate_and_says_where_it_kept_them():
    gate = autoscaler(searched(chosen=True))
    assert (gate.stage, gate.name, gate.passed, gate.evidence) == ("before deploying", AUTOSCALER, True, ("e1", "e2"))
    assert gate.detail == (
        f"{NAME}: keeps every promise in the twin, with the p99 at most 50 ms in 99.96% of 10,080 minutes "
        "(99.90% asked for)"
    )


def test_without_such_a_setting_it_is_open_and_says_by_how_much_the_closest_misses():
    gate = autoscaler(searched(chosen=False))
    assert not gate.passed
    assert gate.detail == (
        f"no setting keeps every promise in the twin: the closest, {NAME}, misses the SLO in 41 minutes of the week "
        "(10 allowed)"
    )


def test_where_nothing_was_played_or_sized_it_is_open_and_says_what_that_takes():
    sized = autoscaler(scaling())
    assert not sized.passed
    assert sized.detail.startswith("2 to 8 replicas follow from the capacity alone: no setting was played")
    nothing = autoscaler(None)
    assert not nothing.passed
    assert nothing.detail.startswith("no setting was looked for")


@pytest.mark.parametrize("state", get_args(EventKind))
def test_a_plan_that_did_not_hold_opens_the_gate_again_and_says_why(state):
    gate = autoscaler(searched(chosen=True), plan(state))
    assert gate.passed is (state not in {"breached", "rolling_back", "rolled_back", "abandoned"})
    assert "plan 0123456789ab for shop/resnet50" in gate.detail
    if state == "verified":
        assert gate.detail.endswith("was applied, watched, and kept its promises there")
    else:
        assert gate.detail.endswith(f"is {state.replace('_', ' ')}: p99 was 80 ms where 50 ms are promised")


def test_a_plan_closes_no_gate_for_a_setting_that_breaks_a_promise():
    assert not autoscaler(searched(chosen=False), plan("verified")).passed


@pytest.mark.parametrize(("p99_ms", "promises"), [(25.0, "availability and a p99 of 25 ms"), (None, "availability;")])
def test_what_manifests_write_is_named_and_stays_open_since_nobody_saw_it_deployed(p99_ms, promises):
    seen = view([measured_trial(EAGER, 10.0)], asked=spec(p99_ms=p99_ms))
    found = {gate.name: gate for gate in gates(seen, None, None)}
    monitoring, alerting = found["monitoring in place"], found["alerting in place"]
    assert not monitoring.passed
    assert not alerting.passed
    assert "ServiceMonitor and the metrics adapter's rules; nobody has seen them deployed" in monitoring.detail
    assert promises in alerting.detail
    assert "PrometheusRule with burn-rate alerts" in alerting.detail


# --- how long loading took ---


def summarized(seen):
    return summarize(
        seen,
        session="s",
        created="2026-11-22T00:00:00+00:00",
        versions={},
        decisions=[],
        scaling=searched(chosen=True),
        seconds=Seconds(total=1, trials=1, overhead=0),
        files={},
    )


def test_a_result_says_how_long_loading_took_in_the_slowest_trial_of_what_was_chosen():
    trials = []
    for load_ms, batches in ((120.0, (1,)), (340.0, (1, 2, 4))):
        evidence = measured_trial(EAGER, 10.0, batches=batches)
        assert isinstance(evidence.outcome, Measured)
        result = evidence.outcome.result.model_copy(update={"load_ms": load_ms})
        trials.append(evidence.model_copy(update={"outcome": Measured(result=result)}))
    result = summarized(view(trials))
    assert result.best.load_ms == 340.0
    assert result.baseline.load_ms == 340.0
    assert SessionResult.model_validate_json(result.model_dump_json()) == result
    assert {gate.name: gate.passed for gate in result.gates}[AUTOSCALER]


def test_a_result_from_before_loading_was_told_can_still_be_read():
    old = sample_result().model_dump(mode="json")
    del old["best"]["load_ms"]
    assert SessionResult.model_validate(old).best.load_ms is None
