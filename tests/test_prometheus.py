"""Traffic from a real Prometheus: what is read, what is refused, and what is said of it."""

import json
import math
import urllib.parse
import urllib.request

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_support import running_prometheus, start_prometheus  # noqa: F401 - a fixture

from simulations.prometheus_week import service_life
from tools.errors import SpecError, StorageError, TrafficError, UnavailableError
from tools.spec import PrometheusSpec
from tools.traffic import bundled_day, read_observed, read_traffic, to_trace, write_observed
from tools.traffic.observed import Series, Signal, Window, quantile
from tools.traffic.quality import clean
from tools.traffic.queries import PRESETS, SIGNALS, latency_unit_ms, queries_of, selector

START = 1704067200
"""2024-01-01 00:00 UTC, a Monday."""
WEEK = 7 * 86_400
END = START + WEEK
WEEK_RPS = np.tile(bundled_day().rps, 7)
ODD_VALUE = 'a "quoted" \\ and\nbroken {range}'


def gauge(name, value, *, minutes=range(7 * 1440)):
    """Samples of `value(minute)`; None leaves one out."""
    values = ((minute, value(minute)) for minute in minutes)
    return "\n".join(f"{name} {v} {START + 60 * minute}" for minute, v in values if v is not None)


def counter(name, rps, *, resets=(), away=range(0)):
    """A counter of a steady rate that starts again half a minute before these, and is not scraped in `away`."""
    total, lines = 0, []
    for minute in range(7 * 1440):
        total = rps * 30 if minute in resets else total + rps * 60
        if minute not in away:
            lines.append(f"{name} {total} {START + 60 * minute}")
    return "\n".join(lines)


def odd_services():
    """Everything that is wrong with somebody's metrics, each under its own name."""
    escaped = ODD_VALUE.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    wave = {minute: 100 + 50 * math.sin(minute / 229) + minute % 7 for minute in range(7 * 1440)}
    families = [
        ("steady_requests counter", [counter('steady_requests_total{pod="a"}', 10, resets={3000, 3600, 7000})]),
        ("gappy_requests counter", [counter('gappy_requests_total{pod="a"}', 10, away=range(4000, 4180))]),
        (
            "pods_requests counter",
            [counter(f'pods_requests_total{{pod="{p}"}}', 5 + p, away=range(p * 2000)) for p in range(3)],
        ),
        ("ha_requests counter", [counter(f'ha_requests_total{{prometheus_replica="{p}"}}', 5) for p in "ab"]),
        ("labelled_rps gauge", [gauge(f'labelled_rps{{team="{escaped}"}}', wave.get)]),
        ("nan_rps gauge", [gauge("nan_rps", lambda m: "NaN" if m % 5 == 4 else wave[m])]),
        ("only_nan_rps gauge", [gauge("only_nan_rps", lambda m: "NaN")]),
        ("inf_rps gauge", [gauge("inf_rps", lambda m: "+Inf" if m == 77 else wave[m])]),
        ("ended_rps gauge", [gauge("ended_rps", wave.get, minutes=range(6 * 1440))]),
        ("late_rps gauge", [gauge("late_rps", wave.get, minutes=range(2 * 1440, 7 * 1440))]),
        ("short_rps gauge", [gauge("short_rps", wave.get, minutes=range(5 * 1440, 7 * 1440))]),
        ("zero_rps gauge", [gauge("zero_rps", lambda m: 0)]),
        ("stuck_rps gauge", [gauge("stuck_rps", lambda m: 42)]),
        ("negative_rps gauge", [gauge("negative_rps", lambda m: -1 if m % 100 == 0 else wave[m])]),
        ("spiky_rps gauge", [gauge("spiky_rps", lambda m: 9000 if m == 5000 else wave[m])]),
        ("wave_rps gauge", [gauge("wave_rps", wave.get)]),
    ]
    text = [f"# TYPE {header}\n" + "\n".join(samples) for header, samples in families]
    life = service_life(WEEK_RPS, start_s=START, rps_per_replica=1200, max_replicas=6)
    return "\n".join([*text, life])


@pytest.fixture(scope="module")
def prometheus(start_prometheus):  # noqa: F811
    return start_prometheus(odd_services())


@pytest.fixture(scope="module")
def ray(prometheus):
    """The service of the `ray-serve` preset, over the week."""
    source = PrometheusSpec(url=prometheus, preset="ray-serve", labels={"deployment": "model"})
    return read_traffic(source, end_s=END)


@pytest.fixture(scope="module")
def day(prometheus):
    """The last day of that service."""
    source = PrometheusSpec(url=prometheus, preset="ray-serve", labels={"deployment": "model"}, window_s=86_400)
    return read_traffic(source, end_s=END)


def read(url, query, **settings):
    """Read a request rate with a query of one's own; a step before the end, where the last samples are."""
    source = PrometheusSpec(url=url, queries={"request_rate": query}, **settings)
    return read_traffic(source, end_s=END - 60)


def ask(url, query):
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query, 'time': END})}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as answer:
        return float(json.load(answer)["data"]["result"][0]["value"][1])


# --- a week of a service ---


def test_a_week_is_read_with_every_signal_as_it_was(ray):
    assert [signal.name for signal in ray.signals] == list(SIGNALS)
    assert ray.window == Window(start_s=START, end_s=END, step_s=60)
    rates = dict(ray.signal("request_rate").points)
    assert len(rates) == 7 * 1440
    trace = to_trace(ray)
    assert trace.mean_rps == pytest.approx(WEEK_RPS.mean(), rel=0.02)
    assert trace.origin_s == START
    assert trace.seconds[:2] == (0, 60)
    expected = np.clip(np.ceil(WEEK_RPS / (0.7 * 1200)), 2, 6)
    replicas = [value for _, value in ray.signal("replicas").points]
    assert replicas[: len(expected)] == expected.tolist()
    assert max(value for _, value in ray.signal("queue_length").points) > 0


def test_the_p99_is_prometheus_s_own(prometheus, ray):
    buckets = 'ray_serve_deployment_processing_latency_ms_bucket{deployment="model"}'
    own = ask(prometheus, f"histogram_quantile(0.99, sum by (le) (increase({buckets}[{WEEK}s])))")
    assert ray.p99.value_ms == pytest.approx(own, rel=0.01)
    assert ray.p99.low_ms <= own <= ray.p99.high_ms
    assert ray.p99.requests == pytest.approx(WEEK_RPS.sum() * 60, rel=0.02)


def test_pods_that_restarted_are_counted_and_leave_no_spike(ray):
    assert any("started again" in finding and "no spike" in finding for finding in ray.findings)
    rates = np.array([rate for _, rate in ray.signal("request_rate").points])
    around = np.stack([np.roll(WEEK_RPS, shift) for shift in (0, 1, 2)])
    assert (rates[3:] < 1.5 * around.max(axis=0)[3:]).all()
    assert (rates[3:] > 0.5 * around.min(axis=0)[3:]).all()


def test_the_window_is_cut_into_pieces_that_fit_together(prometheus):
    whole = read(prometheus, "wave_rps", step_s=15)
    seconds = [second for second, _ in whole.signal("request_rate").points]
    assert len(seconds) == 7 * 86_400 / 15 + 1 - 60 / 15  # the window begins a minute before the data
    assert set(np.diff(seconds)) == {15.0}


def test_a_step_that_is_not_whole_seconds_keeps_its_grid(prometheus):
    observed = read(prometheus, "wave_rps", step_s=22.5)
    assert set(np.diff([second for second, _ in observed.signal("request_rate").points])) == {22.5}


def test_the_default_end_is_now_and_old_data_are_stale_or_gone(prometheus):
    source = PrometheusSpec(url=prometheus, queries={"request_rate": "wave_rps"}, window_s=3600)
    with pytest.raises(TrafficError, match="has no data"):
        read_traffic(source)


def test_an_address_with_a_slash_at_its_end_works(prometheus):
    assert read(f"{prometheus}/", "wave_rps").url == prometheus


# --- the server of the tests itself ---


def test_a_server_ends_with_its_test_and_says_what_it_cannot_take(tmp_path):
    with running_prometheus(f"# TYPE x gauge\nx 1 {START}\n# EOF\n", tmp_path / "good") as url:
        assert ask(url, f"last_over_time(x[{WEEK}s])") == 1
    with pytest.raises(TrafficError, match="refuses the connection"):
        read(url, "x")
    with pytest.raises(UnavailableError, match="promtool does not take the samples"):
        running_prometheus("no metrics at all", tmp_path / "bad").__enter__()


def test_without_prometheus_its_tests_are_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=r"prometheus and promtool not found .*: install Debian's"):
        running_prometheus("# EOF\n", tmp_path).__enter__()


def test_a_made_up_life_counts_every_request_and_starts_replicas_from_zero():
    text = service_life([10, 10, 100, 100, 10, 100], start_s=START, rps_per_replica=50, min_replicas=1)
    counts = {}
    for line in text.splitlines():
        if line.startswith("ray_serve_deployment_request_counter_total"):
            name, value, time = line.split()
            counts.setdefault(name, []).append((int(time) - START, int(value)))
    first, second, third = (counts[name] for name in sorted(counts))
    assert first[-1] == (360, (10 + 10 + 100 / 3 * 2 + 10 + 100 / 3) * 60 // 1)
    assert second == third == [(120, 0), (180, 2000), (240, 4000), (300, 0), (360, 2000)]


# --- files ---


@pytest.mark.parametrize("name", ["week.json", "week.json.gz"])
def test_what_was_observed_is_written_and_read_without_prometheus(tmp_path, day, name):
    write_observed(day, tmp_path / name)
    back = read_observed(tmp_path / name)
    assert back == day
    assert back.digest == day.digest
    assert to_trace(back) == to_trace(day)


def test_the_digest_names_the_content_not_the_moment_of_reading(day):
    assert day.model_copy(update={"read_at": "2030-01-01"}).digest == day.digest
    assert day.model_copy(update={"url": "http://other"}).digest != day.digest


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"{}", "holds no recorded traffic"), (b"\x1f\x8bno", "holds no recorded traffic")],
)
def test_a_file_that_is_not_one_says_so(tmp_path, content, message):
    path = tmp_path / "week.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrafficError, match=message):
        read_observed(path)


def test_a_damaged_archive_and_a_folder_that_cannot_be_written_say_so(tmp_path, day):
    path = tmp_path / "week.json.gz"
    write_observed(day, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrafficError, match="cannot be read"):
        read_observed(path)
    path.write_bytes(b"plain text")
    with pytest.raises(TrafficError, match="cannot be read"):
        read_observed(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_observed(day, tmp_path / "file" / "week.json")


# --- what is refused ---


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nobody_exports_this", "has no data"),
        ("only_nan_rps", "NaN and 0 infinite values, and no number"),
        ("ended_rps", "ended at 2024-01-0[67] .* before the window's end"),
        ("short_rps", "has 2880 points for the 7 days asked for, 29% of them.* set `window_s` to 172740 at most"),
        ("pods_requests_total", "gives 3 series, told apart by `pod`.* sum"),
        ("rate(ha_requests_total[2m])", r"gives 2 series.* sum\(max without \(prometheus_replica\)"),
        ("sum(pods_requests_total)", "looks like a bare counter"),
        ("sum(rate(wave_rps[2m])", "does not take the query .*parse error.* The query: sum"),
        ("rate(wave_rps)", "does not take the query"),
        ("steady_requests_total * on(pod) pods_requests_total / on(pod) group_left nan_rps", "query"),
    ],
)
def test_what_cannot_be_relied_on_is_refused_with_its_query(prometheus, query, message):
    with pytest.raises(TrafficError, match=message) as caught:
        read(prometheus, query)
    assert str(caught.value).startswith(f"{prometheus}: ")
    assert query in str(caught.value)


def test_too_few_points_are_refused_even_if_they_are_all(prometheus):
    with pytest.raises(TrafficError, match="has 6 points"):
        read(prometheus, "wave_rps", window_s=300)


def test_zero_throughout_is_said_and_makes_no_trace(prometheus):
    observed = read(prometheus, "zero_rps")
    assert any("is zero throughout" in finding for finding in observed.findings)
    with pytest.raises(TrafficError, match="saw no request at all"):
        to_trace(observed)


# --- what is said ---


@pytest.mark.parametrize(
    ("query", "finding"),
    [
        ("nan_rps", "has 2016 NaN and 0 infinite values: taken as missing, not as zero"),
        ("inf_rps", "has 0 NaN and 1 infinite values"),
        (
            "sum(rate(gappy_requests_total[2m]))",
            "has no samples from 2024-01-03 18:40 UTC to 2024-01-03 21:41 UTC (3 h)",
        ),
        ("late_rps", "begins at 2024-01-03 00:00 UTC: the first 2 days of the window are not there"),
        ("stuck_rps", "is 42 throughout: real traffic is never that steady"),
        ("negative_rps", "is negative 101 times"),
        ("spiky_rps", "stands more than 20 times above its neighbours at 2024-01-04 11:20 UTC"),
        ("rate(sum(steady_requests_total)[2m:1m])", "takes the rate of a sum"),
    ],
)
def test_what_is_odd_is_named(prometheus, query, finding):
    source = PrometheusSpec(url=prometheus, queries={"request_rate": query}, labels={"a": "b"})
    findings = read_traffic(source, end_s=END - 60).findings
    assert any(finding in said for said in findings), findings
    assert "The query `request_rate` has no {matchers}, so `labels` do not narrow it." in findings


def test_a_quiet_week_of_sound_data_has_no_findings(prometheus):
    assert read(prometheus, "wave_rps", window_s=86_400).findings == ()


def test_nothing_missing_is_read_as_zero(prometheus):
    for query in ("nan_rps", "sum(rate(gappy_requests_total[2m]))", "late_rps", "negative_rps"):
        observed = read(prometheus, query)
        assert all(rate > 0 for rate in to_trace(observed).rps)
        assert to_trace(observed).notes == observed.findings


def test_a_counter_s_restart_is_no_spike_with_rate_and_one_with_the_rate_of_a_sum(prometheus):
    rates = [
        rate for _, rate in read(prometheus, "sum(rate(steady_requests_total{matchers}[{range}]))").signals[0].points
    ]
    assert max(rates) == pytest.approx(10)
    assert min(rates) >= 5  # what came in the half minute after the last scrape is lost
    sums = [rate for _, rate in read(prometheus, "rate(sum(pods_requests_total)[2m:1m])").signals[0].points]
    assert max(sums) > 1000


def test_signals_that_are_not_there_are_left_out_with_the_reason(prometheus):
    queries = {"request_rate": "wave_rps", "queue_length": "ended_rps", "replicas": "nobody_exports_this"}
    observed = read_traffic(PrometheusSpec(url=prometheus, queries=queries), end_s=END - 60)
    assert observed.signal("queue_length").series == ()
    assert observed.signal("latency_buckets") is None
    assert observed.p99 is None
    assert any(finding.startswith("`queue_length` is left out: it ended at") for finding in observed.findings)
    assert "`replicas` is left out: it has no data." in observed.findings


def test_a_histogram_needs_its_bounds_alone(prometheus):
    buckets = "rate(ray_serve_deployment_processing_latency_ms_bucket[2m])"
    for query, found in ((buckets, "application, deployment, le, replica"), (f"sum({buckets})", "none")):
        source = PrometheusSpec(
            url=prometheus, queries={"request_rate": "wave_rps", "latency_buckets": query}, window_s=7200
        )
        with pytest.raises(TrafficError, match=rf"labels {found}; `le` alone is needed.*Write sum by \(le\)"):
            read_traffic(source, end_s=END)


@pytest.mark.parametrize(
    ("bounds", "finding"),
    [('le!="+Inf"', "tells no p99"), (r'le=~"1.0|\\+Inf"', "only tells that the p99 is above 1 ms, its highest bound")],
)
def test_a_histogram_that_is_not_whole_says_what_it_does_not_tell(prometheus, bounds, finding):
    buckets = f"sum by (le) (rate(ray_serve_deployment_processing_latency_ms_bucket{{{bounds}}}[2m]))"
    queries = {"request_rate": "wave_rps", "latency_buckets": buckets}
    observed = read_traffic(PrometheusSpec(url=prometheus, queries=queries, window_s=7200), end_s=END - 60)
    assert len(observed.findings) == 1
    assert finding in observed.findings[0]


# --- queries ---


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_is_promql_and_a_server_without_it_has_no_data(prometheus, preset):
    source = PrometheusSpec(url=prometheus, preset=preset, labels={"deployment": "none"})
    with pytest.raises(TrafficError, match="`request_rate` has no data"):
        read_traffic(source, end_s=END)
    for query in queries_of(source):
        other = PrometheusSpec(url=prometheus, queries={"request_rate": "wave_rps", query.signal: query.promql})
        if query.signal != "request_rate":
            assert any("has no data" in finding for finding in read_traffic(other, end_s=END - 60).findings)


def test_a_query_of_one_s_own_replaces_the_preset_s(prometheus):
    source = PrometheusSpec(url=prometheus, preset="vllm", queries={"request_rate": "wave_rps"})
    observed = read_traffic(source, end_s=END - 60)
    assert observed.signal("request_rate").query == "wave_rps"
    assert observed.signal("queue_length").query == "sum(vllm:num_requests_waiting{})"


def test_a_label_s_value_is_found_whatever_it_holds(prometheus):
    observed = read(prometheus, "sum(labelled_rps{matchers})", labels={"team": ODD_VALUE})
    assert len(observed.signal("request_rate").points) > 10_000


def test_more_points_than_anybody_needs_are_not_asked_for():
    source = PrometheusSpec(url="http://127.0.0.1:1", queries={"request_rate": "up"}, window_s=1e12)
    with pytest.raises(SpecError, match=r"asks for 16,666,666,667 points.*1,000,000 at most"):
        read_traffic(source)


def test_label_names_are_checked():
    for name in ("a-b", "1a", 'x="y"} or up{z', ""):
        with pytest.raises(SpecError, match="is no label"):
            selector({name: "x"})


@given(st.text(), st.text())
def test_an_escaped_value_ends_where_it_should(first, second):
    text = selector({"a": first, "b": second})
    assert "\n" not in text
    inside = text.replace("\\\\", "").replace('\\"', "")
    assert inside.count('"') == 4


@pytest.mark.parametrize(
    ("query", "unit_ms"),
    [
        ("rate(x_seconds_bucket[1m])", 1000),
        ("rate(x_ms_bucket[1m])", 1),
        ("x_us_bucket", 1e-3),
        ("x_items_bucket", 1000),
    ],
)
def test_the_unit_of_a_histogram_is_in_its_name(query, unit_ms):
    assert latency_unit_ms(query) == unit_ms


def test_an_address_with_a_question_mark_is_refused_and_not_repeated():
    source = PrometheusSpec(url="http://127.0.0.1:1/?token=hush", queries={"request_rate": "up"})
    with pytest.raises(SpecError) as caught:
        read_traffic(source)
    assert "hush" not in str(caught.value)


# --- arithmetic ---


@st.composite
def histograms(draw):
    counts = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any))
    bounds = sorted(
        draw(st.lists(st.floats(0.001, 100), min_size=len(counts) - 1, max_size=len(counts) - 1, unique=True))
    )
    cumulative = np.cumsum(counts).tolist()
    series = (
        Series(le=bound, points=((0.0, float(count)),))
        for bound, count in zip([*bounds, math.inf], cumulative, strict=True)
    )
    return Signal(name="latency_buckets", query="x_bucket", series=tuple(series))


@given(histograms(), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_quantile_lies_in_its_bucket_and_rises(buckets, one, other):
    low, high = (quantile(buckets, q, unit_ms=1000, step_s=60) for q in sorted((one, other)))
    for found in (low, high):
        assert found.low_ms <= found.value_ms <= found.high_ms
    assert low.value_ms <= high.value_ms * (1 + 1e-12)
    assert low.requests == pytest.approx(60 * buckets.series[-1].points[0][1])


def test_a_quantile_beyond_the_highest_bound_is_that_bound_and_has_no_upper_one():
    series = (Series(le=1.0, points=((0, 1),)), Series(le=math.inf, points=((0, 100),)))
    found = quantile(Signal(name="latency_buckets", query="x", series=series), 0.99, unit_ms=1000, step_s=1)
    assert (found.value_ms, found.low_ms, found.high_ms) == (1000, 1000, math.inf)


def test_a_histogram_without_requests_or_without_its_last_bucket_has_no_quantile():
    empty = (Series(le=1.0, points=((0, 0),)), Series(le=math.inf, points=((0, 0),)))
    headless = (Series(le=1.0, points=((0, 1),)), Series(le=2.0, points=((0, 2),)))
    for series in (empty, headless, empty[1:], ()):
        signal = Signal(name="latency_buckets", query="x", series=series)
        assert quantile(signal, 0.99, unit_ms=1, step_s=1) is None


@given(st.lists(st.tuples(st.integers(0, 20).map(float), st.floats())))
def test_cleaned_points_are_ascending_finite_and_all_accounted_for(values):
    cleaned = clean(values)
    seconds = [second for second, _ in cleaned.points]
    assert seconds == sorted(set(seconds))
    assert all(math.isfinite(value) for _, value in cleaned.points)
    counts = (len(seconds), cleaned.nans, cleaned.infinities, cleaned.repeated, cleaned.contradicting)
    assert sum(counts) == len(values)
