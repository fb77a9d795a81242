"""What a schedule looks at: files, code, Prometheus; and a week of it, played."""

import os
import re

import pytest
from prometheus_support import start_prometheus  # noqa: F401 - a fixture
from session_support import USER_CODE, write_spec

from agent.scheduling.facts import gather, hourly_means
from simulations import schedule_week
from simulations.prometheus_week import service_life
from tools.errors import SpecError
from tools.reasons import judge
from tools.traffic.trace import Trace


def test_hours_are_means_of_what_was_seen_and_an_hour_half_seen_does_not_count():
    trace = Trace(source="t", seconds=tuple(range(0, 9000, 60)), rps=(1.0,) * 60 + (3.0,) * 90, origin_s=86_400.0)
    assert hourly_means(trace) == ((24, 1.0), (25, 3.0))


def test_facts_name_the_users_code_and_change_with_it(tmp_path):
    code = tmp_path / "small.py"
    code.write_text((USER_CODE / "small.py").read_text())
    spec = write_spec(tmp_path, workload={
        "name": "small", "model": {"factory": f"{code}:build"}, "evaluation": {"factory": f"{code}:data"}
    })  # fmt: skip
    before = gather(str(spec), 1.0)
    assert list(before.files) == [str(code)]
    code.write_text(code.read_text() + "\n# another\n")
    assert gather(str(spec), 1.0).files != before.files


def test_traffic_and_p99_are_read_from_prometheus_and_an_outage_is_no_reason(tmp_path, start_prometheus):  # noqa: F811
    begin_s = 1_704_067_200
    rates = [100.0] * (2 * 1440) + [170.0] * (2 * 1440)
    url = start_prometheus(service_life(rates, start_s=begin_s, rps_per_replica=50, max_replicas=3))
    source = {"url": url, "preset": "ray-serve", "window_s": 2 * 86_400, "labels": {"deployment": "model"}}
    spec = write_spec(tmp_path, traffic={"prometheus": source}, objective={"p99_ms": 150})
    before = gather(str(spec), begin_s + 2 * 86_400)
    since = gather(str(spec), begin_s + 4 * 86_400)
    assert len(before.hourly_rps) == 48
    assert before.unknown == since.unknown == ()
    assert before.hourly_rps[20][1] == pytest.approx(100, rel=0.01)
    assert since.p99_ms > 150
    same_days = since.model_copy(update={"hourly_rps": tuple((h + 120, r) for h, r in since.hourly_rps)})
    assert [r.kind for r in judge(before, same_days, max_age_s=1e9).reasons] == ["traffic_level", "slo"]
    spec = write_spec(tmp_path, traffic={"prometheus": {**source, "url": "http://127.0.0.1:9"}})
    away = gather(str(spec), begin_s + 4 * 86_400)
    assert away.hourly_rps == ()
    assert "127.0.0.1:9" in away.unknown[0]


def test_the_simulated_week_runs_once_for_each_thing_that_happens_and_says_why_for_each_look(tmp_path):
    *lines, looks, reasons, hours, told = schedule_week.play(tmp_path)
    assert looks == "24 looks: 8 runs, 12 without a reason, 1 at a broken spec, 3 put off."
    assert reasons == "The reasons: first 3, traffic_level 1, versions 3, workload 1."
    assert hours.startswith("8 hours of the machine")
    assert told.startswith("The webhook was told 9 events, 9 of them different, after it had refused ")
    assert told.endswith("0 wait.")
    for did, count in (("ran", 8), ("did not run", 13), ("put off", 3)):
        said = [line for line in lines if re.match(rf"\w{{3}} \d\d \d\d:\d\d  \w+ +{did} +\S", line)]
        assert len(said) == count
    assert sum(" ~ " in line for line in lines) == len(schedule_week.HAPPENINGS) + 1
    assert max(map(len, lines)) <= schedule_week.WIDTH


# The user's code


@pytest.fixture
def project(tmp_path):
    """A model whose file imports others of its folder, which fail when they are run, and a spec that names it."""
    folder = tmp_path / "project"
    (folder / "layers").mkdir(parents=True)
    (folder / "model.py").write_text("import torch\nfrom layers.block import Block\nraise SystemExit('run')\n")
    (folder / "layers" / "__init__.py").write_text("")
    (folder / "layers" / "block.py").write_text("from . import math\nraise SystemExit('run')\n")
    (folder / "layers" / "math.py").write_text("PI = 3\n")
    (folder / "notes.py").write_text("# nobody imports it\n")
    (folder / "data.npz").write_bytes(b"data")
    spec = write_spec(folder, workload={
        "name": "small", "model": {"factory": "model.py:build"}, "evaluation": {"npz": "data.npz"}
    })  # fmt: skip
    return folder, str(spec)


def reasons(before, spec):
    return [(r.kind, r.text) for r in judge(before, gather(spec, 2.0), max_age_s=1e9).reasons]


def test_code_is_looked_at_through_its_imports_and_never_run(project):
    folder, spec = project
    files = gather(spec, 1.0).files
    names = sorted(os.path.relpath(name, folder) for name in files)
    assert names == ["data.npz", "layers/__init__.py", "layers/block.py", "layers/math.py", "model.py"]


@pytest.mark.parametrize("name", ["model.py", "layers/block.py", "layers/math.py"])
def test_code_that_changed_is_a_reason_that_names_the_file(project, name):
    folder, spec = project
    before = gather(spec, 1.0)
    assert reasons(before, spec) == []
    (folder / name).write_text((folder / name).read_text() + "\nX = 1\n")
    assert reasons(before, spec) == [("workload", f"The model's or the data's code changed: {folder / name}.")]


def test_a_file_that_nobody_imports_is_no_reason_and_one_that_is_imported_anew_is(project):
    folder, spec = project
    before = gather(spec, 1.0)
    (folder / "notes.py").write_text("# other words\n")
    assert reasons(before, spec) == []
    (folder / "layers" / "math.py").write_text("import notes\n")
    ((_, text),) = reasons(before, spec)
    assert str(folder / "notes.py") in text


def test_code_and_data_that_changed_are_told_apart(project):
    folder, spec = project
    before = gather(spec, 1.0)
    (folder / "data.npz").write_bytes(b"other")
    (folder / "layers" / "math.py").unlink()
    ((kind, text),) = reasons(before, spec)
    assert kind == "workload"
    assert text == (
        f"The model's or the data's code changed: {folder / 'layers' / 'math.py'}. "
        f"Model or data changed: {folder / 'data.npz'}."
    )


def test_a_module_of_the_working_directory_is_looked_at_too_and_a_librarys_is_not(project, monkeypatch):
    folder, _ = project
    monkeypatch.chdir(folder)
    spec = write_spec(folder, workload={
        "name": "small", "model": {"factory": "layers.block:build"}, "evaluation": {"npz": "data.npz"},
        "metric": "json:loads",
    })  # fmt: skip
    names = sorted(os.path.relpath(name, folder) for name in gather(str(spec), 1.0).files)
    assert names == ["data.npz", "layers/__init__.py", "layers/block.py", "layers/math.py"]


def test_code_that_cannot_be_parsed_or_is_gone_is_no_crash(project):
    folder, spec = project
    before = gather(spec, 1.0)
    (folder / "model.py").write_text("def broken(:\n")
    assert [kind for kind, _ in reasons(before, spec)] == ["workload"]
    (folder / "model.py").unlink()
    with pytest.raises(SpecError, match=r"model\.py"):
        gather(spec, 3.0)
