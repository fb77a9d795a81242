"""Recorded challenges: the steps of invented evidence, judged by the real code."""

from recorded_support import EAGER, FLOAT, INT8, view, write_session
from sample_result import PRICE_USD, interval, scaling
from tests_support import hardware, measured_trial, spec

from agent.climb import Climb
from agent.contexts import make_context
from agent.recorded import loaded_of
from agent.space import space
from tools.challenge import Challenge, ChallengeStep, Figures, StepOutcome
from tools.challenge_targets import targets
from tools.contracts import ComparisonResult, Precision
from tools.contracts.recommendation import Effort, Recommendation, Series
from tools.contracts.scaling import DayOutcome, ScalingOption
from tools.ledger import Ledger
from tools.observer import Silent
from tools.record import read_record

BATCHES = (1, 2, 4, 8)
ORT = "onnxruntime"


def recipe_of(runtime, precision):
    """Return what a session would try on this runtime in this precision."""
    wanted = space(view([measured_trial(EAGER, 12.0)], available=("eager", "openvino", ORT))).recipes
    return next(r for r in wanted if (r.runtime, r.precision) == (runtime, precision))


ORT_FLOAT = recipe_of(ORT, Precision.FP32)
ORT_INT8 = recipe_of(ORT, Precision.INT8_STATIC)
TRIED = {"eager": EAGER, "ort": ORT_FLOAT, "ort-int8": ORT_INT8, "openvino": FLOAT, "openvino-int8": INT8}


def evidence_of_times(times_ms, drops=None):
    """Return trials and sweeps of every recipe that the steps of the small workload can ask for."""
    drops = drops or {}
    found = []
    for name, recipe in TRIED.items():
        found.append(measured_trial(recipe, times_ms[name], drop=drops.get(name, 0.0)))
        found.append(measured_trial(recipe, times_ms[name], batches=BATCHES))
    return found


class Recorded:
    """A finished session whose evidence can be replaced."""

    def __init__(self, home):
        self.home = home
        asked = spec()
        asked = asked.model_copy(update={"search": asked.search.model_copy(update={"exclude": ("torchscript",)})})
        self.record = read_record(write_session(home, [measured_trial(EAGER, 12.0)], asked=asked))

    def climb(self, evidence, machine=None, *, elsewhere=()):
        """Return the climb of a session that measured this, on no machine if none is given.

        Args:
            evidence: that the session used.
            machine: measures.
            elsewhere: what other sessions of the same home measured.
        """
        availability = view([], available=("eager", "openvino", ORT)).availability
        started = self.record.started.model_copy(
            update={"availability": availability, "hardware": hardware(("avx512_vnni",))}
        )
        record = type(self.record)(self.record.folder, started, self.record.loaded)
        context = make_context(
            record,
            loaded_of(record),
            self.home,
            Ledger(None),
            recorded=(*evidence, *elsewhere),
            observer=Silent(),
            machine=machine,
        )
        return Climb(context, evidence)


def figures(throughput_rps, p99_ms, batch=1, drop=0.001):
    """Return figures of a step."""
    rate = interval(throughput_rps)
    return Figures(
        batch_size=batch,
        throughput_rps=rate,
        p50_ms=interval(p99_ms / 1.2),
        p99_ms=interval(p99_ms),
        cost_per_1000_usd=rate.inverse(PRICE_USD / 3.6),
        accuracy=interval(0.98, 0.005),
        accuracy_drop=interval(drop, 2.0),
    )


def step(name, outcome, throughput_rps=None, p99_ms=10.0, **more):
    """Return a step of an invented story."""
    return ChallengeStep(
        name=name,
        outcome=outcome,
        recipe=f"{name} recipe",
        figures=None if throughput_rps is None else figures(throughput_rps, p99_ms, more.pop("batch", 1)),
        evidence=() if throughput_rps is None else (f"e-{name.replace(' ', '-')}",),
        **{"why": f"{name}, in a sentence.", **more},
    )


def sample_challenge():
    """Return a story with a step of every outcome."""
    steps = (
        step("baseline", StepOutcome.BASELINE, 26.0, 46.0),
        step("16-bit floats", StepOutcome.SKIPPED, why="Skipped: this CPU has no BF16 kernels."),
        step("INT8", StepOutcome.STEP_BACK, 21.0, 55.0),
        step("batching", StepOutcome.TAKEN, 48.0, 190.0, batch=8),
        step("pruning", StepOutcome.TAKEN, 110.0, 90.0, batch=8),
        step("distillation", StepOutcome.NOT_TAKEN, 111.0, 90.0, batch=8),
        step("best runtime", StepOutcome.TAKEN, 640.0, 14.0, batch=8, settled=False),
        step("replicas", StepOutcome.COMPUTED, 1280.0, 14.0, batch=8, replicas=2),
    )
    ratio = ComparisonResult(
        baseline_batch=1, candidate_batch=8, p50=interval(9.0), throughput=interval(24.0), rounds=7, processes=7
    )
    return Challenge(
        session="20261122-000000-abcd",
        workload="digits-resnet50",
        created="2026-11-22T00:00:00+00:00",
        metric="top1",
        price_per_hour_usd=PRICE_USD,
        steps=steps,
        targets=targets(steps, ("e-compared", ratio)),
        seconds=500.0,
    )


def played_scaling(*, worst_p99_ms=0.4, peak_rps=6_000.0, capacity_rps=35_000.0, replicas=2, days=1, **updates):
    """Return a scaling whose traffic was played in the twin under today's autoscaler, which stays."""
    minutes, served = days * 1440, days * 86_400 * 1_000.0
    outcome = DayOutcome(
        day="the recorded traffic",
        minutes=minutes,
        missed_minutes=0,
        worst_p99_ms=worst_p99_ms,
        replica_hours=replicas * minutes / 60,
        cost_usd=replicas * minutes / 60 * PRICE_USD,
        scalings=0,
        reversals=0,
        peak_replicas=replicas,
        mean_replicas=replicas,
        requests=served,
        served=served,
        refused=0.0,
        waiting_at_end=0.0,
    )
    today = ScalingOption(name="today's HPA: cpu 80 %, 2 to 40", spec={}, outcomes=(outcome,), is_today=True)
    buckets = 288
    series = Series(
        minute=tuple(i * minutes / buckets for i in range(buckets)),
        rate_rps=(peak_rps,) * buckets,
        replicas=(replicas,) * buckets,
        p99_ms=(worst_p99_ms,) * buckets,
    )
    effort = Effort(
        settings=1, failed_early=0, too_costly=0, busiest_day_runs=1, recorded_runs=1, harder_runs=0, processes=1,
        seconds=0.1,
    )  # fmt: skip
    recommendation = Recommendation(
        slo_ms=50.0,
        kept_share=0.999,
        minutes=minutes,
        chosen=today,
        today=today,
        options=(today,),
        static=None,
        sentence="Change nothing.",
        notes=(),
        effort=effort,
        before=series,
    )
    planned = scaling()
    traffic = planned.traffic.model_copy(update={"peak_rps": peak_rps, "seconds": minutes * 60.0})
    return planned.model_copy(
        update={
            "traffic": traffic,
            "capacity_rps": interval(capacity_rps),
            "recommendation": recommendation,
            "evidence": ("e-scaling",),
            **updates,
        }
    )
