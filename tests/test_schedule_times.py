"""When a schedule is due: cron lines and quiet hours, by clocks that are set twice a year."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scheduling.times import CronLine, loud_s, quiet_until, read_quiet
from tools.errors import SpecError

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def times(line, begin, count, timezone="Europe/Berlin"):
    cron, found = CronLine(line, timezone), []
    for _ in range(count):
        begin = cron.next_after(begin)
        found.append(begin.astimezone(dt.UTC))
    return found


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


def test_an_hour_that_does_not_exist_is_made_up_for_right_after_it():
    found = times("30 2 * * *", dt.datetime(2026, 3, 28, 12, tzinfo=BERLIN), 2)
    assert found == [utc(2026, 3, 29, 1, 30), utc(2026, 3, 30, 0, 30)]


def test_an_hour_that_comes_twice_runs_a_nightly_line_once_and_an_hourly_one_twice():
    begin = dt.datetime(2026, 10, 24, 23, 30, tzinfo=BERLIN)
    assert times("30 2 * * *", begin, 2) == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]
    assert times("0 * * * *", begin, 5) == [
        utc(2026, 10, 24, 22 + h) if h < 2 else utc(2026, 10, 25, h - 2) for h in range(5)
    ]


def test_weekdays_are_those_of_cron():
    sunday = dt.datetime(2026, 6, 7, 3, tzinfo=dt.UTC)
    for line in ("0 3 * * 0", "0 3 * * 7", "0 3 * * sun"):
        assert times(line, MONDAY, 1, "UTC") == [sunday]
    assert [t.day for t in times("0 3 * * 1-5", MONDAY, 6, "UTC")] == [1, 2, 3, 4, 5, 8]
    assert [t.day for t in times("0 3 * * */2", MONDAY, 4, "UTC")] == [2, 4, 6, 7]


def test_a_day_of_the_month_or_a_weekday_is_enough():
    assert [t.day for t in times("0 3 13 * 5", MONDAY, 4, "UTC")] == [5, 12, 13, 19]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("61 * * * *", "61"),
        ("* * * *", "4 fields"),
        ("@daily", "1 fields"),
        ("0 0 ? * *", "'?' is no day"),
        ("0 0 * * 8", "8"),
        ("0 0 * * 5-1", "ends before it begins"),
        ("0 0 * foo *", "foo"),
        ("*/0 * * * *", "Increment"),
        ("", "0 fields"),
    ],
)
def test_a_line_that_is_none_or_never_comes_is_refused_with_what_is_wrong(line, says):
    with pytest.raises(SpecError) as refused:
        CronLine(line, "UTC")
    assert says in str(refused.value)


def test_a_zone_that_does_not_exist_is_refused():
    with pytest.raises(SpecError, match="Mars"):
        CronLine("0 3 * * *", "Mars/Phobos")


@given(
    minutes=st.integers(0, 366 * 1440), line=st.sampled_from(["7 3 * * *", "*/20 * * * *", "0 4 1 * 1", "30 2 * * 0"])
)
def test_the_next_time_is_later_and_there_is_none_in_between(minutes, line):
    moment = utc(2026, 1, 1) + dt.timedelta(minutes=minutes)
    cron = CronLine(line, "Europe/Berlin")
    following = cron.next_after(moment)
    assert following.timestamp() > moment.timestamp()
    middle = moment + (following - moment) / 2
    assert cron.next_after(middle) == following


def test_quiet_hours_may_cross_midnight_and_follow_each_other():
    quiet = (read_quiet("22:00-06:00"), read_quiet("06:00-08:00"))
    night = dt.datetime(2026, 3, 28, 23, tzinfo=BERLIN)
    assert quiet_until(quiet, night) == dt.datetime(2026, 3, 29, 8, tzinfo=BERLIN)
    assert quiet_until(quiet, dt.datetime(2026, 3, 28, 8, tzinfo=BERLIN)) is None
    with pytest.raises(SpecError, match="no time to run"):
        quiet_until((read_quiet("00:00-12:00"), read_quiet("12:00-00:00")), night)
    for text in ("8-9", "25:00-26:00", "08:00-08:00", ""):
        with pytest.raises(SpecError, match="--quiet"):
            read_quiet(text)


@pytest.mark.parametrize(
    ("hours", "moment", "end"),
    [
        # Clocks go from 02:00 to 03:00 at 01:00 UTC ...
        ("01:00-02:30", (2026, 3, 29, 0, 30), (2026, 3, 29, 1)),
        ("02:30-04:00", (2026, 3, 29, 1, 10), (2026, 3, 29, 2)),
        # ... and from 03:00 to 02:00 at 01:00 UTC: these hours come twice.
        ("02:15-02:45", (2026, 10, 25, 0, 20), (2026, 10, 25, 0, 45)),
        ("02:15-02:45", (2026, 10, 25, 1, 20), (2026, 10, 25, 1, 45)),
        ("01:00-02:30", (2026, 10, 24, 23, 30), (2026, 10, 25, 0, 30)),
    ],
)
def test_quiet_hours_end_with_the_first_minute_that_clocks_show_outside_of_them(hours, moment, end):
    until = quiet_until((read_quiet(hours),), utc(*moment).astimezone(BERLIN))
    assert until.astimezone(dt.UTC) == utc(*end)


def test_quiet_hours_that_come_twice_in_a_night_are_kept_twice():
    between = utc(2026, 10, 25, 0, 50).astimezone(BERLIN)
    assert loud_s((read_quiet("02:15-02:45"),), between) == 25 * 60


@given(minutes=st.integers(0, 366 * 1440), begin=st.integers(0, 1439), length=st.integers(1, 1439))
def test_quiet_hours_end_where_no_minute_is_quiet_and_begin_where_one_is(minutes, begin, length):
    end = (begin + length) % 1440
    quiet = (read_quiet(f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"),)
    moment = (utc(2026, 1, 1) + dt.timedelta(minutes=minutes)).astimezone(BERLIN)
    until = quiet_until(quiet, moment)
    if until is None:
        later = dt.datetime.fromtimestamp(moment.timestamp() + loud_s(quiet, moment), BERLIN)
        assert quiet[0].contains(later)
        assert quiet_until(quiet, later) is not None
    else:
        assert until.timestamp() > moment.timestamp()
        assert quiet_until(quiet, until) is None
