"""Traces: reading, weighing and shortening them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from traffic_support import rates

from tools.errors import SpecError
from tools.traffic import BUNDLED_DAY, SERIES_POINTS, Trace, bundled_day, constant, load_trace, summarize, to_csv


@st.composite
def traces(draw, max_size=60):
    steps = draw(st.lists(st.integers(1, 5000), min_size=1, max_size=max_size - 1))
    seconds = [0.0]
    for step in steps:
        seconds.append(seconds[-1] + step)
    return Trace(source="made", seconds=tuple(seconds), rps=tuple(draw(rates(len(seconds)))))


@pytest.fixture
def csv_file(tmp_path):
    def write(text):
        path = tmp_path / "trace.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# --- reading ---


def test_a_csv_file_is_read_with_its_path_as_the_source(csv_file):
    path = csv_file("second,rps\n0,10\n60,20.5\n")
    assert load_trace(path) == Trace(source=str(path), seconds=(0, 60), rps=(10, 20.5))


@pytest.mark.parametrize(
    "text",
    [
        "rps,host,second\n10,a,0\n20,b,60\n",
        "\ufeffsecond,rps\n0,10\n60,20\n",
        " second , rps \r\n0 , 10\r\n\r\n60 , 20\r\n",
        '"second","rps"\n"0","10"\n"60","20"',
    ],
    ids=["other columns", "byte order mark", "spaces, CRLF and a blank line", "quotes"],
)
def test_what_spreadsheets_write_is_read(csv_file, text):
    trace = load_trace(csv_file(text))
    assert (trace.seconds, trace.rps) == ((0, 60), (10, 20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: has no column `second` (found: an empty line)"),
        ("0,10\n60,20\n", "line 1: has no column `second` (found: 0, 10)"),
        ("second,rate\n0,10\n", "line 1: has no column `rps` (found: second, rate)"),
        ("second,rps\n0,10\n60,many\n", "line 3: `rps` is 'many', not a number"),
        ("second,rps\n0,10\n\n60,\n", "line 4: `rps` is empty"),
        ("second,rps\n0,10\n60\n", "line 3: `rps` is empty"),
        ("second,rps\n0,nan\n60,1\n", "line 2: `rps` is nan, not a finite number"),
        ("second,rps\n0,1\ninf,1\n", "line 3: `second` is inf, not a finite number"),
        ("second,rps\n0,1\n60,-5\n", "line 3: `rps` is negative (-5)"),
        ("second,rps\n-60,1\n60,5\n", "line 2: `second` is negative (-60)"),
        ("second,rps\n0,1\n60,5\n60,6\n", "line 4: second 60 occurs twice"),
        ("second,rps\n0,1\n\n1700000120,5\n1700000060,6\n", "line 5: second 1700000060 comes after 1700000120"),
        ("second,rps\n0,1\n", "1 row of data are no trace: at least 2 are needed"),
        ("second,rps\n", "0 rows of data are no trace"),
        ("second,rps\n0,0\n60,0.0\n", "there is no traffic at all"),
        ("second,rps\n0,0\n60,5e-324\n", "there is no traffic at all"),
        ("second,rps\n0,1\n60,1e308\n", "line 3: `rps` is 1e+308, and no service sees more than 1e+12"),
        (b"second,rps\n0,\xff\n", "cannot be read as CSV"),
    ],
)
def test_a_trace_that_cannot_be_used_says_where_and_why(csv_file, text, message):
    path = csv_file(text)
    with pytest.raises(SpecError) as caught:
        load_trace(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        load_trace(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="cannot be read as CSV"):
        load_trace(tmp_path)


def test_a_gap_is_named_and_the_rate_before_it_lasts_through_it(csv_file):
    trace = load_trace(csv_file("second,rps\n0,10\n60,10\n120,10\n420,40\n480,40\n"))
    assert trace.notes == (
        (
            "The trace has no samples from 120 to 420 s (usually there is one every 60 s): "
            "the rate before a gap was taken to last through it."
        ),
    )
    assert trace.mean_rps == pytest.approx((10 * 420 + 40 * 120) / 540)


def test_a_late_sample_is_no_gap_and_many_gaps_are_counted(csv_file):
    assert load_trace(csv_file("second,rps\n0,1\n60,1\n120,1\n300,1\n")).notes == ()
    seconds = [k * 1000 + s for k in range(6) for s in (0, 60, 120, 180)]
    note = load_trace(csv_file("second,rps\n" + "".join(f"{s},1\n" for s in seconds))).notes[0]
    assert "180 to 1000 s, 1180 to 2000 s, 2180 to 3000 s and 2 more" in note


def test_a_trace_made_in_code_holds_the_same_promises():
    good = {"source": "made", "seconds": (0, 1), "rps": (1, 2)}
    for broken in ({"seconds": (1, 0)}, {"rps": (1, math.nan)}, {"rps": (0, 0)}, {"rps": (1,)}, {"seconds": (0, 0)}):
        with pytest.raises(ValidationError):
            Trace(**(good | broken))
    with pytest.raises(ValidationError):
        Trace(source="made", seconds=(0,), rps=(1,))
    with pytest.raises(ValidationError, match="frozen"):
        Trace(**good).rps = (3, 4)


@given(trace=traces())
def test_what_is_written_as_csv_is_read_back(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("round") / "trace.csv"
    path.write_text(to_csv(trace))
    back = load_trace(path)
    assert back.seconds == trace.seconds
    assert back.rps == pytest.approx(trace.rps, rel=1e-14)


# --- statistics ---


def test_quantiles_and_the_mean_are_weighted_by_time():
    trace = Trace(source="made", seconds=(0, 90, 100), rps=(1, 100, 2))  # 90 s, 10 s, then a median step of 50 s
    assert trace.durations_s == (90, 10, 50)
    assert trace.length_s == 150
    assert trace.mean_rps == pytest.approx((90 + 1000 + 100) / 150)
    assert [trace.quantile_rps(q) for q in (0, 0.5, 0.6, 0.61, 0.93, 0.94, 1)] == [1, 1, 1, 2, 2, 100, 100]


def test_a_share_of_the_time_means_exactly_that_share():
    rates = tuple([1.0] * 95 + [9.0] * 5)
    trace = Trace(source="made", seconds=tuple(0.1 * i for i in range(100)), rps=rates)
    assert trace.quantile_rps(0.95) == 1
    assert trace.quantile_rps(0.96) == 9


@given(trace=traces(), a=st.floats(0, 1), b=st.floats(0, 1))
def test_quantiles_rise_from_the_lowest_to_the_highest_rate(trace, a, b):
    low, high = sorted((a, b))
    assert min(trace.rps) <= trace.quantile_rps(low) <= trace.quantile_rps(high) <= trace.peak_rps
    at_or_below_s = sum(s for r, s in zip(trace.rps, trace.durations_s, strict=True) if r <= trace.quantile_rps(a))
    assert at_or_below_s >= a * trace.length_s * (1 - 1e-9)


@given(rps=st.integers(2, 30).flatmap(rates), q=st.floats(0, 1))
def test_sampling_twice_as_often_changes_no_statistic(rps, q):
    coarse = Trace(source="made", seconds=tuple(60 * i for i in range(len(rps))), rps=tuple(rps))
    twice = [rate for rate in rps for _ in range(2)]
    fine = Trace(source="made", seconds=tuple(30 * i for i in range(len(twice))), rps=tuple(twice))
    assert fine.length_s == coarse.length_s
    assert fine.mean_rps == pytest.approx(coarse.mean_rps)
    assert fine.quantile_rps(q) == coarse.quantile_rps(q)


def test_a_share_above_one_is_no_quantile():
    with pytest.raises(ValueError, match="between 0 and 1"):
        constant(1).quantile_rps(95)


def test_a_constant_rate_is_a_day_of_it():
    summary = summarize(constant(250.0))
    assert (summary.p50_rps, summary.p95_rps, summary.peak_rps) == (250, 250, 250)
    assert summary.mean_rps == pytest.approx(250)
    assert summary.seconds == 86_400
    assert summary.source == "constant 250 rps"


@pytest.mark.parametrize("rate", [0.0, -1.0, 5e-324, 1e308, math.nan, math.inf])
def test_a_constant_rate_must_be_a_rate(rate):
    with pytest.raises(SpecError, match=r"traffic\.rate_rps"):
        constant(rate)


# --- summary ---


def test_a_short_trace_is_plotted_as_it_is():
    trace = Trace(source="made", seconds=(0, 60, 120), rps=(1, 5, 2))
    assert summarize(trace).series == ((0, 1), (60, 5), (120, 2))


@given(trace=traces(max_size=900))
def test_the_series_is_short_in_order_and_keeps_the_peak(trace):
    series = summarize(trace).series
    assert 1 <= len(series) <= SERIES_POINTS
    assert [s for s, _ in series] == sorted({s for s, _ in series})
    assert max(r for _, r in series) == trace.peak_rps
    assert set(series) <= set(zip(trace.seconds, trace.rps, strict=True))


def test_a_single_spike_of_a_long_trace_is_seen_in_the_series():
    rates = [1.0] * 5000
    rates[3217] = 50.0
    trace = Trace(source="made", seconds=tuple(range(5000)), rps=tuple(rates))
    assert (3217, 50) in summarize(trace).series


# --- the bundled day ---


def test_the_shipped_day_is_what_the_function_makes():
    assert BUNDLED_DAY.read_text() == to_csv(bundled_day())


def test_the_bundled_day_has_the_shape_that_it_promises():
    day = load_trace(BUNDLED_DAY)
    assert len(day.seconds) == 1440
    assert day.length_s == 86_400
    assert day.notes == ()
    assert day.mean_rps == pytest.approx(1000, rel=0.02)
    assert 4000 < day.peak_rps < 6250

    def mean_of(start_h, end_h):
        rates = day.rps[int(start_h * 60) : int(end_h * 60)]
        return sum(rates) / len(rates)

    night, morning, lunch, afternoon = mean_of(2, 5), mean_of(10, 11.5), mean_of(12, 13), mean_of(14, 15)
    assert night < 0.4 * day.mean_rps
    assert lunch > 1.15 * max(morning, afternoon)
    assert mean_of(20.2, 20.6) > 2.8 * day.mean_rps
    mean_rps = day.mean_rps
    assert 0.01 < sum(rate > 2 * mean_rps for rate in day.rps) / 1440 < 0.05
    assert sum(rate > 3.5 * mean_rps for rate in day.rps) <= 10  # minutes: the spikes are short


def test_another_seed_is_another_day():
    assert bundled_day(1) == bundled_day(1)
    assert bundled_day(1) != bundled_day(2)
