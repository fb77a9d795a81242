"""From metrics to proposals: pods in groups, and pods one by one."""

from hypothesis import given
from hypothesis import strategies as st

from tools.scaling.hpa import (
    Controller,
    Fleet,
    Metric,
    Pod,
    Sample,
    Target,
    Tolerance,
    alike,
    combine,
    fleet_of,
    parse_autoscaler,
    propose,
    propose_all,
    propose_average_value,
    propose_total,
    propose_utilization,
    propose_value,
    ready_pods,
)

TENTH = Tolerance(0.9, 1.1)
QUEUE = {
    "type": "Pods",
    "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}},
}


class TestProposals:
    def test_a_ratio_on_the_border_of_the_tolerance_changes_nothing(self):
        for usage, expected in ((27_000, 10), (26_999, 9), (33_000, 10), (33_001, 12)):
            fleet = Fleet(10, 10 * usage)
            assert propose_average_value(fleet, current=10, target_milli=30_000, tolerance=TENTH) == expected

    def test_the_mean_is_cut_to_whole_milli_units(self):
        # 33,000.9 is 33,000 and so within the tolerance.
        assert propose_average_value(Fleet(10, 330_009), current=10, target_milli=30_000, tolerance=TENTH) == 10

    def test_utilization_is_cut_to_whole_percent(self):
        fleet = alike(sampled=4, usage_milli=3 * 1000 + 119, request_milli=1000, target_percent=70)
        assert propose_utilization(fleet, current=4, target_percent=70, tolerance=TENTH) == 4
        assert propose_utilization(fleet._replace(usage_milli=3120), current=4, target_percent=70, tolerance=TENTH) == 5

    def test_without_a_sample_there_is_no_proposal(self):
        assert propose_average_value(Fleet(0, 0, missing=3), current=3, target_milli=1, tolerance=TENTH) is None
        assert propose_utilization(Fleet(0, 0, missing=3), current=3, target_percent=1, tolerance=TENTH) is None

    def test_samples_of_gone_pods_alone_make_no_utilization(self):
        assert propose_utilization(Fleet(2, 0, gone=2), current=3, target_percent=70, tolerance=TENTH) is None

    def test_samples_of_gone_pods_count_into_the_mean_but_not_into_the_pods(self):
        fleet = Fleet(sampled=4, usage_milli=4 * 60_000, gone=2)
        assert propose_average_value(fleet, current=2, target_milli=30_000, tolerance=TENTH) == 4
        busy = Fleet(sampled=4, usage_milli=4000, gone=2, request_milli=2000)
        assert propose_utilization(busy, current=2, target_percent=70, tolerance=TENTH) == 6

    def test_missing_pods_hold_back_a_change_in_either_direction(self):
        down = Fleet(sampled=4, usage_milli=4 * 10_000, missing=4)
        assert propose_average_value(down, current=8, target_milli=30_000, tolerance=TENTH) == 6
        up = Fleet(sampled=4, usage_milli=4 * 90_000, missing=4)
        assert propose_average_value(up, current=8, target_milli=30_000, tolerance=TENTH) == 12
        reversed_by_them = Fleet(sampled=4, usage_milli=4 * 50_000, missing=4)
        assert propose_average_value(reversed_by_them, current=8, target_milli=30_000, tolerance=TENTH) == 8

    def test_a_missing_pod_counts_as_its_target_where_that_is_above_its_request(self):
        fleet = alike(sampled=4, usage_milli=4 * 500, request_milli=1000, target_percent=150, missing=2)
        assert propose_utilization(fleet, current=6, target_percent=150, tolerance=TENTH) == 4
        assert fleet.missing_usage_milli == 3000

    def test_unready_pods_count_as_idle_when_scaling_up_and_not_at_all_when_scaling_down(self):
        # 6.1 pods' worth: a seventh is asked for, unless three more that are starting bring the mean to 1.02.
        up = Fleet(sampled=3, usage_milli=3 * 61_000)
        assert propose_average_value(up, current=6, target_milli=30_000, tolerance=TENTH) == 7
        assert propose_average_value(up._replace(unready=3), current=6, target_milli=30_000, tolerance=TENTH) == 6
        requests = {"request_milli": 1000, "target_percent": 30}
        busy = alike(sampled=3, usage_milli=3 * 610, unready=3, **requests)
        assert propose_utilization(busy, current=6, target_percent=30, tolerance=TENTH) == 6
        assert propose_utilization(busy._replace(unready=0), current=6, target_percent=30, tolerance=TENTH) == 7
        down = Fleet(sampled=3, usage_milli=3 * 10_000, unready=1)
        assert propose_average_value(down, current=4, target_milli=30_000, tolerance=TENTH) == 1

    def test_more_pods_than_replicas_do_not_turn_a_step_down_into_one_up(self):
        fleet = Fleet(sampled=4, usage_milli=4 * 10_000, missing=4)
        assert propose_average_value(fleet, current=2, target_milli=30_000, tolerance=TENTH) == 2

    def test_with_fewer_pods_than_replicas_the_pods_are_multiplied(self):
        # A quota holds 5 of 12: over their target, and yet fewer replicas are proposed.
        assert propose_average_value(Fleet(5, 5 * 45_000), current=12, target_milli=30_000, tolerance=TENTH) == 8

    def test_one_value_multiplies_the_ready_pods(self):
        values = {"current": 3, "target_milli": 100_000, "tolerance": TENTH}
        assert propose_value(110_000, ready=2, **values) == 3
        assert propose_value(200_000, ready=2, **values) == 4
        assert propose_value(200_000, ready=0, **values) == 0
        assert propose_value(200_000, ready=None, **values) is None
        assert propose_value(200_001, ready=None, **{**values, "current": 0}) == 3

    def test_a_total_is_shared_out_whatever_the_pods_do(self):
        values = {"target_milli": 30_000, "tolerance": TENTH}
        assert propose_total(99_000, status_replicas=3, **values) == 3
        assert propose_total(99_001, status_replicas=3, **values) == 4
        assert propose_total(31_000, status_replicas=0, **values) == 2
        assert propose_total(0, status_replicas=0, **values) == 0

    def test_the_largest_proposal_wins_and_a_failed_metric_allows_no_step_down(self):
        assert combine([3, 7, 5], current=6) == 7
        assert combine([7, None], current=6) == 7
        assert combine([6, None], current=6) == 6
        assert combine([None, 5], current=6) is None
        assert combine([None, None], current=6) is None

    @given(
        groups=st.tuples(st.integers(1, 40), st.integers(0, 10), st.integers(0, 10)),
        usages=st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)),
        target=st.integers(1, 10**5),
        tolerance=st.tuples(st.floats(0, 0.9), st.floats(0, 2)),
    )
    def test_more_load_never_gives_fewer_replicas(self, groups, usages, target, tolerance):
        sampled, unready, missing = groups
        bounds = Tolerance(1 - tolerance[0], 1 + tolerance[1])
        low, high = sorted(usages)
        proposals = [
            propose_average_value(
                Fleet(sampled, usage, unready, missing), current=sum(groups), target_milli=target, tolerance=bounds
            )
            for usage in (low, high)
        ]
        assert proposals[0] <= proposals[1]
        percents = [
            propose_utilization(
                alike(
                    sampled=sampled,
                    usage_milli=usage,
                    request_milli=700,
                    target_percent=1 + target % 300,
                    unready=unready,
                    missing=missing,
                ),
                current=sum(groups),
                target_percent=1 + target % 300,
                tolerance=bounds,
            )
            for usage in (low, high)
        ]
        assert percents[0] <= percents[1]

    @given(
        current=st.integers(1, 100),
        ready=st.integers(1, 100),
        target=st.integers(1, 10**6),
        ratio=st.floats(0.5, 1.5),
        tolerance=st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5)),
    )
    def test_a_metric_within_the_tolerance_changes_nothing(self, current, ready, target, ratio, tolerance):
        bounds = Tolerance(1 - tolerance[0], 1 + tolerance[1])
        mean = int(target * ratio)
        if bounds.low <= mean / target <= bounds.high:
            fleet = Fleet(ready, mean * ready)
            assert propose_average_value(fleet, current=current, target_milli=target, tolerance=bounds) == current
            total = {"target_milli": target, "tolerance": bounds}
            assert propose_value(mean, current=current, ready=ready, **total) == current


CPU = Metric("Resource", "cpu", "Utilization", target_percent=70)
CLOCK = Controller()


def pod(name, *, ready=True, start_s=0.0, since_s=10.0, phase="Running", deleting=False, cpu=1000):
    return Pod(name, phase, ready, start_s, since_s, deleting, {"main": {"cpu": cpu}} if cpu else {"main": {}})


def cpu_fleet(pods, *, now_s, at_s=None, window_s=15.0, metric=CPU):
    samples = {p.name: Sample(500, now_s if at_s is None else at_s, window_s) for p in pods}
    return fleet_of(metric, samples, Target(now_s, len(pods), len(pods), pods), CLOCK)


class TestPods:
    def test_a_young_pod_counts_once_a_whole_window_lies_after_it_turned_ready(self):
        young = [pod("a", since_s=50.0)]
        assert cpu_fleet(young, now_s=299.0, at_s=64.9).unready == 1
        assert cpu_fleet(young, now_s=299.0, at_s=65.0).sampled == 1
        assert cpu_fleet(young, now_s=300.0, at_s=64.9).sampled == 1

    def test_an_old_pod_that_is_not_ready_counts_unless_it_never_was(self):
        assert cpu_fleet([pod("a", ready=False, since_s=30.0)], now_s=1000.0).sampled == 1
        assert cpu_fleet([pod("a", ready=False, since_s=29.9)], now_s=1000.0).unready == 1
        assert cpu_fleet([pod("a", ready=None, since_s=None)], now_s=1000.0).unready == 1

    def test_readiness_matters_to_cpu_only(self):
        for metric in (
            Metric("Resource", "memory", "AverageValue", target_milli=1),
            Metric("Pods", "cpu", "AverageValue", target_milli=1),
        ):
            assert cpu_fleet([pod("a", ready=False)], now_s=20.0, metric=metric).sampled == 1

    def test_failed_and_deleting_pods_are_left_out_and_their_samples_too(self):
        pods = [pod("a"), pod("b", phase="Failed"), pod("c", deleting=True), pod("d", phase="Pending")]
        fleet = cpu_fleet(pods, now_s=1000.0)
        assert (fleet.sampled, fleet.usage_milli, fleet.unready, fleet.missing, fleet.gone) == (1, 500, 1, 0, 0)

    def test_one_container_without_a_request_makes_every_utilization_fail(self):
        assert cpu_fleet([pod("a"), pod("b", cpu=None, deleting=True)], now_s=1000.0) is None

    def test_a_container_metric_asks_for_that_container_alone(self):
        pods = [pod("a")._replace(requests_milli={"main": {"cpu": 400}, "log": {}})]
        of_main = Metric("ContainerResource", "cpu", "Utilization", target_percent=70, container="main")
        assert cpu_fleet(pods, now_s=1000.0, metric=of_main).request_milli == 400
        assert cpu_fleet(pods, now_s=1000.0) is None
        of_none = Metric("ContainerResource", "cpu", "Utilization", target_percent=70, container="other")
        assert cpu_fleet(pods, now_s=1000.0, metric=of_none) is None

    def test_pods_of_two_revisions_request_differently(self):
        pods = [pod("a", cpu=333), pod("b", cpu=1000), pod("c", cpu=333)]
        metric = Metric("Resource", "cpu", "Utilization", target_percent=150)
        samples = {"b": Sample(100, 990.0, 15.0)}
        fleet = fleet_of(metric, samples, Target(1000.0, 3, 3, pods), CLOCK)
        assert (fleet.request_milli, fleet.missing_request_milli, fleet.missing_usage_milli) == (1000, 666, 2 * 499)

    def test_ready_pods_count_even_while_they_are_deleted(self):
        assert ready_pods([pod("a", deleting=True), pod("b", ready=False), pod("c", phase="Pending")]) == 1
        assert ready_pods([]) is None

    def test_an_empty_answer_is_a_failure(self):
        spec = parse_autoscaler({"maxReplicas": 9, "metrics": [QUEUE]})
        for answer in (None, {}, []):
            assert propose(spec.metrics[0], answer, Target(0.0, 1, 1, [pod("a")]), spec) is None

    @given(
        kinds=st.lists(st.sampled_from(["sampled", "pending", "missing", "gone", "failed"]), min_size=1, max_size=20),
        value=st.integers(0, 200_000),
        current=st.integers(1, 20),
        percent=st.integers(1, 200),
        by_utilization=st.booleans(),
    )
    def test_pods_one_by_one_and_in_groups_give_the_same_proposal(self, kinds, value, current, percent, by_utilization):
        phases = {"pending": "Pending", "failed": "Failed"}
        pods = [pod(str(i), phase=phases.get(kind, "Running")) for i, kind in enumerate(kinds) if kind != "gone"]
        counted = [str(i) for i, kind in enumerate(kinds) if kind in ("sampled", "gone", "failed")]
        samples = {name: Sample(value, 1000.0, 15.0) for name in counted}
        count = kinds.count
        groups = {"unready": count("pending"), "missing": count("missing")}
        target = {"type": "Utilization", "averageUtilization": percent}
        resource = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
        spec = parse_autoscaler({"maxReplicas": 9, "metrics": [resource if by_utilization else QUEUE]})
        slow = propose_all(spec, [samples], Target(1000.0, current, len(pods), pods))
        if by_utilization:
            fleet = alike(
                sampled=count("sampled"),
                usage_milli=count("sampled") * value,
                request_milli=1000,
                target_percent=percent,
                **groups,
            )._replace(sampled=count("sampled") + count("gone"), gone=count("gone"))
            fast = propose_utilization(fleet, current=current, target_percent=percent, tolerance=TENTH)
        else:
            sampled = count("sampled") + count("gone")
            fleet = Fleet(sampled, sampled * value, gone=count("gone"), **groups)
            fast = propose_average_value(fleet, current=current, target_milli=30_000, tolerance=TENTH)
        assert slow == (fast if pods else None)
