"""The HorizontalPodAutoscaler controller's arithmetic, held against recordings of the real one (Kubernetes 1.36).

Set `HPA_TIMELINES` to a folder to compare its recordings as well.
"""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hpa_cluster import run_freely
from hpa_support import compare, load
from hypothesis import given
from hypothesis import strategies as st

from tools.scaling.hpa import SYNC_WORK_S, Memory, parse_autoscaler
from tools.scaling.hpa_window import Recommendations

QUEUE = {
    "type": "Pods",
    "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}},
}


def recordings():
    folders = [Path(__file__).parent / "hpa_timelines", *map(Path, filter(None, [os.environ.get("HPA_TIMELINES")]))]
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if ".json" in path.suffixes]
    assert paths
    return [pytest.param(path, id=f"{path.parent.name}/{path.name.partition('.')[0]}") for path in paths]


def autoscaler(**spec):
    return parse_autoscaler({"maxReplicas": 100, "metrics": [QUEUE], **spec})


def steps(spec, proposal, *, start, syncs, period_s=15.0):
    """The replicas after each sync of a service that follows at once."""
    memory, replicas, result = Memory(spec), start, []
    for i in range(syncs):
        now_s = i * (period_s + SYNC_WORK_S)
        after = memory.decide(now_s, replicas, proposal).replicas
        if after != replicas:
            memory.scaled(now_s, replicas, after)
        replicas = after
        result.append(replicas)
    return result


@pytest.mark.parametrize("path", recordings())
def test_every_recorded_sync_gives_the_same_proposal_and_the_same_decision(path):
    result = compare(load(path))
    assert result.mismatches == []
    assert result.syncs > 0


@pytest.mark.parametrize("path", recordings())
def test_running_freely_from_the_load_alone_the_replicas_change_as_recorded(path):
    # The syncs come when they came: on a ramp, a tenth of a second is another replica.
    recording = load(path)
    recorded = [
        (sync["t"], sync["spec_replicas"], sync["scale_put"]["replicas"])
        for sync in recording["syncs"]
        if sync.get("scale_put", {}).get("code") == 200
    ]
    assert list(run_freely(recording, [sync["t"] for sync in recording["syncs"]])) == recorded


@pytest.mark.parametrize("path", recordings())
def test_with_a_steady_clock_the_same_changes_come_within_one_sync(path):
    recording = load(path)
    if any(config.get("shape") == "linear" for config in recording["metrics_config"].values()):
        pytest.skip("on a ramp the moment of a sync decides how many replicas it asks for")
    period_s = recording["controller"]["hpa_settings"]["sync_period"]
    recorded = [
        (sync["t"], sync["spec_replicas"], sync["scale_put"]["replicas"])
        for sync in recording["syncs"]
        if sync.get("scale_put", {}).get("code") == 200
    ]
    syncs_s = [(i + 1) * (period_s + SYNC_WORK_S) for i in range(len(recording["syncs"]))]
    free = list(run_freely(recording, syncs_s))
    assert [change[1:] for change in free] == [change[1:] for change in recorded]
    assert all(abs(ours[0] - theirs[0]) <= period_s for ours, theirs in zip(free, recorded, strict=True))


class TestDecisions:
    def test_without_a_behavior_block_replicas_double_and_with_any_they_triple_first(self):
        assert steps(autoscaler(), 100, start=2, syncs=4) == [4, 8, 16, 32]
        assert steps(autoscaler(behavior={}), 100, start=2, syncs=4) == [6, 12, 24, 48]

    def test_bounds_are_restored_without_asking_metrics_or_rates(self):
        slow = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "stabilizationWindowSeconds": 60}
        spec = autoscaler(minReplicas=5, maxReplicas=8, behavior={"scaleUp": slow, "scaleDown": slow})
        memory = Memory(spec)
        assert memory.decide(0.0, 12, None) == (8, "AboveMaxReplicas", None)
        assert memory.decide(1.0, 1, None) == (5, "BelowMinReplicas", None)
        assert memory.decide(2.0, 0, 7) == (0, "ScalingDisabled", None)

    def test_that_counts_as_a_change_afterwards(self):
        slow = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
        memory = Memory(autoscaler(minReplicas=5, behavior={"scaleUp": slow}))
        assert memory.decide(0.0, 1, None).replicas == 5
        memory.scaled(0.0, 1, 5)
        assert memory.decide(15.0, 5, 9) == (5, "ReadyForNewScale", "ScaleUpLimit")
        assert memory.decide(59.999, 5, 9).replicas == 5
        assert memory.decide(60.0, 5, 9).replicas == 6

    def test_a_failing_sync_remembers_nothing(self):
        memory = Memory(autoscaler(behavior={"scaleDown": {"stabilizationWindowSeconds": 30}}))
        assert memory.decide(0.0, 9, 9).replicas == 9
        assert memory.decide(15.0, 9, None) == (9, "FailedGetMetrics", None)
        assert memory.decide(31.0, 9, 2).replicas == 2

    def test_a_fresh_controller_holds_the_current_replicas_for_a_window(self):
        assert steps(autoscaler(), 2, start=9, syncs=21) == [9] * 20 + [2]

    def test_a_recommendation_as_old_as_the_window_counts_without_a_behavior_block_only(self):
        older, newer = Memory(autoscaler()), Memory(autoscaler(behavior={}))
        for memory in (older, newer):
            memory.decide(0.0, 9, 9)
        assert older.decide(300.0, 9, 2).replicas == 9
        assert newer.decide(300.0, 9, 2).replicas == 2

    def test_a_longer_window_brings_back_what_had_outlived_the_shorter(self):
        def window(seconds):
            return autoscaler(behavior={"scaleDown": {"stabilizationWindowSeconds": seconds}})

        memory = Memory(window(10))
        memory.decide(0.0, 9, 9)
        memory.decide(5.0, 9, 8)
        memory.patched(window(60))
        assert memory.decide(30.0, 9, 2).replicas == 9

    def test_percentages_round_up_on_the_way_up_and_down_on_the_way_down(self):
        def percent(value, **more):
            rule = {"policies": [{"type": "Percent", "value": value, "periodSeconds": 15}], **more}
            return autoscaler(behavior={"scaleUp": rule, "scaleDown": {**rule, "stabilizationWindowSeconds": 0}})

        assert steps(percent(10), 100, start=11, syncs=2) == [13, 15]
        assert steps(percent(10), 1, start=11, syncs=3) == [9, 8, 7]
        assert steps(percent(150), 1, start=11, syncs=1) == [1]

    def test_select_policy_min_binds_to_the_smallest_change_and_disabled_to_none(self):
        policies = [
            {"type": "Pods", "value": 1, "periodSeconds": 15},
            {"type": "Percent", "value": 50, "periodSeconds": 15},
        ]
        rules = {"policies": policies, "stabilizationWindowSeconds": 0}

        def selecting(policy):
            return autoscaler(behavior={side: {**rules, "selectPolicy": policy} for side in ("scaleUp", "scaleDown")})

        assert steps(selecting("Min"), 100, start=10, syncs=1) == [11]
        assert steps(selecting("Max"), 100, start=10, syncs=1) == [15]
        assert steps(selecting("Min"), 1, start=10, syncs=1) == [9]
        assert steps(selecting("Max"), 1, start=10, syncs=1) == [5]
        assert steps(selecting("Disabled"), 100, start=10, syncs=1) == [10]
        assert steps(selecting("Disabled"), 1, start=10, syncs=1) == [10]

    def test_zero_replicas_come_back_where_zero_is_allowed(self):
        external = {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}
        memory = Memory(autoscaler(minReplicas=0, metrics=[{"type": "External", "external": external}]))
        assert memory.decide(0.0, 0, 3) == (3, "ReadyForNewScale", None)

    def test_what_held_a_proposal_back_is_said(self):
        assert Memory(autoscaler()).decide(0.0, 3, 50) == (6, "ReadyForNewScale", "ScaleUpLimit")
        assert Memory(autoscaler(maxReplicas=5)).decide(0.0, 3, 50) == (5, "ReadyForNewScale", "TooManyReplicas")
        down = {"scaleDown": {"stabilizationWindowSeconds": 0}}
        assert Memory(autoscaler(minReplicas=2, behavior=down)).decide(0.0, 3, 1) == (
            2,
            "ReadyForNewScale",
            "TooFewReplicas",
        )
        up = {"scaleUp": {"stabilizationWindowSeconds": 60}}
        assert Memory(autoscaler(behavior=up)).decide(0.0, 3, 4) == (3, "ScaleUpStabilized", None)


@st.composite
def behaviors(draw):
    def rules():
        policy = st.fixed_dictionaries(
            {
                "type": st.sampled_from(["Pods", "Percent"]),
                "value": st.integers(1, 150),
                "periodSeconds": st.integers(1, 90),
            }
        )
        return {
            "stabilizationWindowSeconds": draw(st.integers(0, 120)),
            "selectPolicy": draw(st.sampled_from(["Max", "Min", "Disabled"])),
            "policies": draw(st.lists(policy, min_size=1, max_size=3)),
        }

    return (
        draw(st.none() | st.fixed_dictionaries({}))
        if draw(st.booleans())
        else {"scaleUp": rules(), "scaleDown": rules()}
    )


histories = st.lists(st.tuples(st.floats(0.5, 60), st.none() | st.integers(0, 60)), min_size=1, max_size=40)


class TestDecisionsWhateverComes:
    @given(behavior=behaviors(), history=histories, start=st.integers(1, 60))
    def test_replicas_stay_within_bounds(self, behavior, history, start):
        spec = autoscaler(minReplicas=3, maxReplicas=30, behavior=behavior)
        memory, now_s, replicas = Memory(spec), 0.0, start
        for gap_s, proposal in history:
            now_s += gap_s
            after = memory.decide(now_s, replicas, proposal).replicas
            assert 3 <= after <= 30
            if after != replicas:
                memory.scaled(now_s, replicas, after)
            replicas = after

    @given(behavior=behaviors(), history=histories, last=st.tuples(st.integers(0, 60), st.integers(0, 60)))
    def test_a_larger_proposal_never_decides_for_fewer(self, behavior, history, last):
        decided = []
        for proposal in sorted(last):
            memory, now_s, replicas = Memory(autoscaler(behavior=behavior)), 0.0, 10
            for gap_s, earlier in history:
                now_s += gap_s
                after = memory.decide(now_s, replicas, earlier).replicas
                if after != replicas:
                    memory.scaled(now_s, replicas, after)
                replicas = after
            decided.append(memory.decide(now_s + 15.0, replicas, proposal).replicas)
        assert decided[0] <= decided[1]

    @given(history=histories, window_s=st.integers(0, 120))
    def test_stabilized_replicas_stay_between_the_extremes_of_the_window(self, history, window_s):
        window = {"stabilizationWindowSeconds": window_s}
        memory = Memory(autoscaler(behavior={"scaleUp": window, "scaleDown": window}))
        now_s, replicas, past = 0.0, 10, []
        for gap_s, proposal in history:
            now_s += gap_s
            past = past or [(now_s, replicas)]
            after = memory.decide(now_s, replicas, proposal).replicas
            if proposal is not None:
                past.append((now_s, proposal))
                within = [value for at_s, value in past if at_s > now_s - window_s] or [proposal]
                assert min(replicas, *within, proposal) <= after or after == 1
                assert after <= max(replicas, *within)
                if after < replicas:
                    assert after >= max(1, *within)
            if after != replicas:
                memory.scaled(now_s, replicas, after)
            replicas = after

    @given(
        history=histories,
        added=st.integers(1, 10),
        removed=st.integers(1, 10),
        period_s=st.integers(1, 120),
    )
    def test_no_period_sees_more_change_than_its_policy_allows(self, history, added, removed, period_s):
        def rules(pods):
            policy = {"type": "Pods", "value": pods, "periodSeconds": period_s}
            return {"policies": [policy], "stabilizationWindowSeconds": 0}

        memory = Memory(autoscaler(behavior={"scaleUp": rules(added), "scaleDown": rules(removed)}))
        now_s, replicas, trail = 0.0, 10, [(-1e9, 10)]
        for gap_s, proposal in history:
            now_s += gap_s
            after = memory.decide(now_s, replicas, proposal).replicas
            if after != replicas:
                at_start = [count for at_s, count in trail if at_s <= now_s - period_s][-1]
                assert after <= max(replicas, at_start + added)
                assert after >= min(replicas, at_start - removed)
                memory.scaled(now_s, replicas, after)
                trail.append((now_s, after))
            replicas = after
        assert all(a[0] < b[0] for a, b in pairwise(trail))

    @given(
        history=st.lists(
            st.tuples(
                st.floats(0.5, 10), st.integers(0, 20), st.none() | st.tuples(st.integers(0, 30), st.integers(0, 30))
            ),
            min_size=20,
            max_size=60,
        )
    )
    def test_the_window_is_the_controllers_list(self, history):
        ours, theirs, now_s = Recommendations(), [], 0.0
        up_s, down_s = 0, 60
        ours.resize(up_s=up_s, down_s=down_s, inclusive=False)
        for gap_s, value, windows in history:
            now_s += gap_s
            if windows:
                up_s, down_s = windows
                ours.resize(up_s=up_s, down_s=down_s, inclusive=False)
            lowest = min([value, *(v for at_s, v in theirs if at_s > now_s - up_s)])
            highest = max([value, *(v for at_s, v in theirs if at_s > now_s - down_s)])
            assert ours.extremes(now_s, value) == (lowest, highest)
            ours.store(now_s, value)
            outlived = [i for i, (at_s, _) in enumerate(theirs) if at_s < now_s - max(up_s, down_s)]
            if outlived:
                theirs[outlived[-1]] = (now_s, value)
            else:
                theirs.append((now_s, value))
