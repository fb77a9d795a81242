"""Energy: read from the package's counter where there is one, and never made up where there is none."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.measure.energy import EnergyCounter, find_counter

RANGE_UJ = 262_143_328_850


def zone(root, name, label, energy_uj=1_000, range_uj=RANGE_UJ):
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not_counted_twice(tmp_path):
    first, second = zone(tmp_path, "intel-rapl:0", "package-0"), zone(tmp_path, "intel-rapl:1", "package-1")
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:2", "psys")
    counter = find_counter(tmp_path)
    assert isinstance(counter, EnergyCounter)
    assert counter.files == (first, second)
    before = counter.read_uj()
    first.write_text("3001000")
    second.write_text("501000")
    assert counter.joules(before, counter.read_uj()) == pytest.approx(3.5)


def test_a_counter_that_began_again_is_followed(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=RANGE_UJ - 1_000_000)
    counter = find_counter(tmp_path)
    before = counter.read_uj()
    file.write_text("2000000")
    assert counter.joules(before, counter.read_uj()) == pytest.approx(3.0)


@given(st.integers(0, RANGE_UJ - 1), st.integers(0, RANGE_UJ - 1))
def test_energy_is_what_was_added_wherever_the_counter_stood(start, used):
    counter = EnergyCounter((), (RANGE_UJ,))
    assert counter.joules((start,), ((start + used) % RANGE_UJ,)) == pytest.approx(used / 1e6)


def test_a_machine_without_a_counter_says_so(tmp_path):
    assert "no energy counter" in find_counter(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_for_root_only_says_what_to_do(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    file.chmod(0)
    assert f"chmod a+r {file}" in find_counter(tmp_path)


def test_a_counter_that_the_kernel_refuses_is_explained(tmp_path, monkeypatch):
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    read = type(file).read_text

    def refuse(path, *args, **kwargs):
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(type(file), "read_text", refuse)
    assert "can be read by root only" in find_counter(tmp_path)


def test_a_counter_that_shows_no_number_is_not_used(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", energy_uj="")
    assert "cannot be read" in find_counter(tmp_path)


def test_a_counter_that_goes_away_gives_no_energy(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    counter = find_counter(tmp_path)
    before = counter.read_uj()
    file.unlink()
    assert counter.read_uj() is None
    assert counter.joules(before, counter.read_uj()) is None
