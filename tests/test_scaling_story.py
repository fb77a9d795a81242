"""What a search came to, in one sentence for a person."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaling_search_support import day_outcome

from tools.contracts.recommendation import Judged, Shortfall, StaticNeed
from tools.contracts.scaling import ScalingOption
from tools.scaling import story


def _option(name="x", *, is_today=False, rejected=None, **outcome):
    return ScalingOption(
        name=name, spec={"maxReplicas": 3}, outcomes=(day_outcome(**outcome),), is_today=is_today, rejected=rejected
    )


def _today(promise=None, **outcome):
    broken = ()
    if promise is not None:
        broken = (Shortfall(promise=promise, asked=1, got=2, sentence="flaps, 60 times in the week"),)
    return Judged(option=_option(is_today=True, **outcome), shortfalls=broken)


def _told(static=(2, 3), chosen=None, today=None, **more):
    need = None if static is None else StaticNeed(p95=static[0], peak=static[1])
    return story.sentence(slo_ms=100, static=need, chosen=chosen, today=today, **more)


WEEK = 10_080


class TestStory:
    def test_todays_hpa_misses_and_costs_more(self):
        today = _today("slo", minutes=WEEK, missed=41, cost=17)
        assert _told(chosen=_option(minutes=WEEK), today=today) == (
            "2 replicas hold 95 % of the traffic, a 3rd takes the spikes; today's HPA would have missed the SLO in "
            "41 minutes of the week and costs 1.7x."
        )

    @pytest.mark.parametrize(
        ("today", "said"),
        [
            (_today(cost=17), "today's HPA keeps the SLO as well, but costs 1.7x."),
            (_today(cost=10.4), "today's HPA keeps the SLO as well, but costs 4 % more."),
            (_today(missed=1, cost=20), "today's HPA keeps the SLO as well (1 minute missed), but costs 2.0x."),
            (
                _today("slo", missed=41, cost=8),
                "would have missed the SLO in 41 minutes of the day, though it costs 20 % less.",
            ),
            (_today("slo", missed=1), "would have missed the SLO in 1 minute of the day at the same cost."),
            (_today("slo", missed=2, minutes=180), "missed the SLO in 2 minutes of these 3 hours at the same cost."),
            (_today("flapping", cost=200), "today's HPA flaps, 60 times in the week and costs 20x."),
        ],
    )
    def test_what_todays_hpa_does_against_the_chosen_one(self, today, said):
        assert _told(chosen=_option(), today=today).endswith(said)

    def test_todays_hpa_is_best_already(self):
        assert _told(chosen=_option(is_today=True), today=_today()).endswith(
            "; change nothing: today's HPA misses the SLO in no minute of the day, and nothing that was tried keeps "
            "every promise for 1 % less."
        )

    def test_there_is_no_hpa_today(self):
        assert _told(chosen=_option("cpu 70 %, 2 to 9", cost=10), today=None).endswith(
            "; `cpu 70 %, 2 to 9` would have missed the SLO in no minute of the day and costs $10.00 a day."
        )

    def test_nothing_keeps_every_promise(self):
        shortfalls = tuple(Shortfall(promise="p", asked=1, got=2, sentence=f"does {n}") for n in "abc")
        closest = Judged(option=_option("always 3"), shortfalls=shortfalls)
        assert _told(closest=closest, today=_today("slo", missed=3)).endswith(
            "; no setting that was tried keeps every promise: the closest, `always 3`, does a and does b, and breaks "
            "1 more promise; today's HPA would have missed the SLO in 3 minutes of the day."
        )

    @pytest.mark.parametrize(
        ("static", "said"),
        [
            ((1, 1), "1 replica holds all of the traffic"),
            ((1, 2), "1 replica holds 95 % of the traffic, a 2nd takes the spikes"),
            ((7, 8), "7 replicas hold 95 % of the traffic, an 8th takes the spikes"),
            ((2, 6), "2 replicas hold 95 % of the traffic, 4 more take the spikes"),
        ],
    )
    def test_how_many_replicas_hold_the_traffic(self, static, said):
        assert story.holding(StaticNeed(p95=static[0], peak=static[1])) == said

    @pytest.mark.parametrize(
        ("minutes", "said"),
        [
            (WEEK, "the week"),
            (1440, "the day"),
            (12_960, "these 9 days"),
            (180, "these 3 hours"),
            (40, "these 40 minutes"),
            (2160, "these 36 hours"),
            (1, "this minute"),
        ],
    )
    def test_a_length_of_traffic_has_a_readable_name(self, minutes, said):
        assert story.stretch(minutes) == said

    @given(
        minutes=st.integers(1, 50_000),
        missed=st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
        cost=st.tuples(st.floats(0.01, 1e5), st.floats(0.01, 1e5)),
        breaks=st.sampled_from([None, "slo", "flapping"]),
    )
    def test_a_comparison_never_claims_what_the_numbers_do_not_say(self, minutes, missed, cost, breaks):
        chosen = _option(minutes=minutes, missed=min(missed[0], minutes), cost=cost[0])
        of_today = max(1, min(missed[1], minutes)) if breaks == "slo" else min(missed[1], minutes)
        today = _today(breaks, minutes=minutes, missed=of_today, cost=cost[1])
        said = _told(chosen=chosen, today=today).split("; ", maxsplit=1)[1]
        claimed = re.search(r"would have missed the SLO in ([\d,]+) minutes? of", said)
        assert (claimed is not None) == (breaks == "slo")
        if claimed:
            assert int(claimed[1].replace(",", "")) == of_today
        assert ("keeps the SLO" in said) == (breaks is None)
        ratio = cost[1] / cost[0]
        factor, more, less = (
            re.search(pattern, said) for pattern in (r"([\d,.]+)x\.$", r"([\d.]+) % more", r"([\d.]+) % less")
        )
        if factor:
            assert float(factor[1].replace(",", "")) == pytest.approx(ratio, rel=0.06)
        elif more:
            assert 100 * (ratio - 1) == pytest.approx(float(more[1]), abs=0.51)
        elif less:
            assert 100 * (1 - ratio) == pytest.approx(float(less[1]), abs=0.51)
        else:
            assert said.endswith("at the same cost.")
            assert ratio == pytest.approx(1, abs=0.006)
        assert "change nothing" not in said
