"""Choosing: constraints first, then the figure, and ties within the noise go to the simpler recipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.contracts import (
    Accuracy,
    ArtifactRef,
    BatchPoint,
    Interval,
    Latency,
    ModelFormat,
    Precision,
    Recipe,
    Step,
)
from tools.selection import (
    Configured,
    as_option,
    breaches,
    cheapest,
    closest,
    configurations,
    margins,
    worst_latency_ms,
)
from tools.spec import Objective
from tools.view import Tried


def interval(value, spread=0.01, n=400):
    return Interval(value=value, low=value * (1 - spread), high=value * (1 + spread), n=n)


def point(batch, p50, *, p99=None, spread=0.01, memory=200.0):
    p99 = p99 or p50 * 1.2
    return BatchPoint(
        batch_size=batch,
        latency_ms=Latency(p50=interval(p50, spread), p95=interval(p50 * 1.1, spread), p99=interval(p99, spread)),
        throughput_rps=interval(batch * 1e3 / p50, spread),
        peak_memory_mb=memory,
        mean_ms=p50,
        stable=True,
    )


def tried(runtime, points, *, drop=0.0, steps=0, precision=Precision.FP32, size=10.0):
    recipe = Recipe(runtime=runtime, precision=precision, steps=tuple(Step(transform="cast") for _ in range(steps)))
    return Tried(
        recipe=recipe,
        evidence=(recipe.digest,),
        outcome="measured",
        reason=None,
        points={p.batch_size: p for p in points},
        artifact=ArtifactRef(digest="a", directory="/a", format=ModelFormat.ONNX, precision=precision, size_mb=size),
        accuracy=Accuracy(
            metric="top1",
            value=interval(0.97),
            drop=Interval(value=drop, low=drop - 0.005, high=drop + 0.005, n=597),
            changed_items=0,
        ),
    )


COST = Objective(minimize="cost", p99_ms=50, max_accuracy_drop=0.01)


def choose(items, objective=COST):
    return cheapest(configurations(items), objective, 0.1)


def test_the_cheapest_that_keeps_everything_wins():
    slow, fast = tried("eager", [point(1, 12)]), tried("openvino", [point(1, 2)], steps=2)
    winner, why = choose([slow, fast])
    assert winner.tried is fast
    assert why == "the smallest cost of all that keep every constraint"


def test_a_candidate_that_loses_accuracy_never_wins():
    winner, _ = choose([tried("eager", [point(1, 12)]), tried("openvino", [point(1, 0.1)], drop=0.02)])
    assert winner.tried.recipe.runtime == "eager"


def test_within_the_noise_the_simpler_recipe_wins_and_it_is_said():
    simple = tried("onnxruntime", [point(1, 1.01)], steps=1)
    complex_ = tried("openvino", [point(1, 1.0)], steps=3, precision=Precision.INT8_STATIC)
    winner, why = choose([simple, complex_])
    assert winner.tried is simple
    assert "not slower beyond the noise than openvino int8-static at batch 1" in why


def test_beyond_the_noise_the_faster_recipe_wins_however_complex():
    simple = tried("onnxruntime", [point(1, 1.05)], steps=1)
    complex_ = tried("openvino", [point(1, 1.0)], steps=3, precision=Precision.INT8_STATIC)
    assert choose([simple, complex_])[0].tried is complex_


def test_float_beats_integer_at_the_same_speed():
    integer = tried("onnxruntime", [point(1, 1.0)], steps=1, precision=Precision.INT8_DYNAMIC)
    floating = tried("openvino", [point(1, 1.0)], steps=1)
    assert choose([integer, floating])[0].tried is floating


def test_a_larger_batch_must_fit_the_slo_twice_over():
    assert worst_latency_ms(point(1, 10, p99=20)) == pytest.approx(20 * 1.01)
    assert worst_latency_ms(point(8, 10, p99=20)) == pytest.approx(2 * 20 * 1.01)
    items = [tried("openvino", [point(1, 5), point(8, 18, p99=20), point(16, 30, p99=26)])]
    assert choose(items)[0].point.batch_size == 8


def test_nothing_feasible_is_none_and_the_closest_is_named():
    items = [tried("eager", [point(1, 90)]), tried("openvino", [point(1, 55)])]
    winner, why = choose(items)
    assert winner is None
    assert why == "no configuration keeps every constraint"
    near = closest(configurations(items), COST)
    assert near.tried.recipe.runtime == "openvino"
    assert breaches(near, COST) == ["p99_ms: up to 66.66 ms where 50 is allowed"]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective(minimize="latency"), "fast"),
        (Objective(minimize="size"), "small"),
        (Objective(minimize="cost"), "fast"),
        (Objective(minimize="cost", max_size_mb=5), "small"),
        (Objective(minimize="cost", max_memory_mb=100), "small"),
    ],
)
def test_each_objective_and_constraint_counts(objective, expected):
    items = [
        tried("fast", [point(1, 1, memory=500)], size=50),
        tried("small", [point(1, 3, memory=90)], size=2),
    ]
    assert choose(items, objective)[0].tried.recipe.runtime == expected


def test_memory_counts_at_the_batch_in_use():
    items = [tried("openvino", [point(1, 2, memory=100), point(8, 4, memory=300)])]
    assert choose(items, Objective(max_memory_mb=200))[0].point.batch_size == 1


many = st.lists(
    st.builds(
        lambda runtime, p50, drop, steps, integer: tried(
            runtime,
            [point(1, p50), point(4, p50 * 2)],
            drop=drop,
            steps=steps,
            precision=Precision.INT8_STATIC if integer else Precision.FP32,
        ),
        st.sampled_from(["eager", "onnxruntime", "openvino"]),
        st.floats(0.1, 100),
        st.floats(-0.02, 0.03),
        st.integers(0, 4),
        st.booleans(),
    ),
    max_size=6,
)


@given(many, st.floats(0.5, 100))
def test_what_is_chosen_keeps_every_constraint_and_is_not_beaten_beyond_the_noise(items, slo):
    objective = Objective(p99_ms=slo)
    options = configurations(items)
    winner, _ = cheapest(options, objective, 0.1)
    feasible = [o for o in options if not breaches(o, objective)]
    if winner is None:
        assert not feasible
        return
    assert all(m.margin >= -1e-9 for m in margins(winner, objective))
    for other in feasible:
        assert other.point.throughput_rps.low <= winner.point.throughput_rps.high


@given(many)
def test_the_order_of_the_options_does_not_matter(items):
    chosen = choose(items)[0]
    reversed_ = choose(items[::-1])[0]
    assert (chosen is None) == (reversed_ is None)
    if chosen is not None:
        assert chosen.tried.recipe.complexity == reversed_.tried.recipe.complexity


def test_an_option_carries_the_numbers_that_counted():
    option = as_option(Configured(tried("eager", [point(1, 10)]), point(1, 10, p99=60)), COST, 0.36)
    assert option.facts["cost_per_1000_usd"] == pytest.approx(0.36 / (3.6 * 100))
    assert option.rejected_because == "p99_ms: up to 60.6 ms where 50 is allowed"
