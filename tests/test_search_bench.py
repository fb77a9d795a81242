"""The recorded grid stands in for the machine, and the searches that race on it play by the same rules."""

import gzip
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.search.__main__ import main
from simulations.search.grid import (
    Accuracy,
    Grid,
    GridError,
    MeasuringProtocol,
    Meter,
    Provenance,
    Recording,
    Timing,
    load_grid,
    save_grid,
)
from simulations.search.peers import HillClimbing, Random, Tpe
from simulations.search.policy import Infertune
from simulations.search.race import STRATEGIES, run, search
from simulations.search.record import Progress, Recorder, record_cells
from simulations.search.space import (
    BASELINE,
    FORMATS,
    STUDENTS,
    TEACHER,
    Cell,
    all_cells,
    cell_of,
    kind_of,
    recipe_of,
    step_of,
)
from simulations.search.strategies import Briefing, incumbent
from simulations.search.tasks import KEPT, thinned_us
from tools.contracts import Hardware, ModelFormat, WorkloadInfo
from tools.spec import WorkloadSpec
from tools.transforms import TRANSFORM_NAMES, check_order
from tools.worker import LIGHT_MODULES, TORCH_MODULES, Returned, Worker

USER_CODE = Path(__file__).parent / "user_code" / "small.py"
HARDWARE = Hardware(cpu="a CPU", architecture="x86_64", cores=2, memory_mb=8000, flags=("avx512_vnni", "avx512_bf16"))
PROTOCOL = MeasuringProtocol(cell_s=0.05, distill_s=10.0)
SMALL = tuple(
    cell_of(student=student, form=form, threads=threads, batch=batch)
    for student, form, threads, batch in itertools.product(
        STUDENTS[:2], ("eager fp32", "openvino fp32", "openvino int8-static"), (1, 2), (1, 2, 4)
    )
)
BEST = cell_of(student="resnet18", form="openvino int8-static", threads=2, batch=4)
SPEED = {"eager fp32": 1.0, "openvino fp32": 3.0, "openvino int8-static": 9.0}


def call_ms(cell):
    """Milliseconds of a call on a machine where every factor helps by itself, so that there is one summit."""
    student = 1.0 if cell.student == TEACHER else 0.4
    return 10.0 * student / SPEED[cell.format] * (0.5 + 0.5 * cell.batch) / math.sqrt(cell.threads)


def timing(ms, spread=0.05, load_s=0.5):
    samples = np.random.default_rng(0).normal(ms, spread * ms, 100).clip(ms / 2)
    return Timing(load_s=load_s, measure_s=1.0, p99_ms=ms, calls=100, disturbed=0.0, samples_us=thinned_us(samples))


def recording(wanted=SMALL, p99_ms=50.0, drops=None, **changes):
    parts = {part for cell in wanted for part in cell.parts}
    drops = drops or {}
    content = {
        "provenance": Provenance(
            created="2026-11-01T00:00:00+00:00",
            hardware=HARDWARE,
            versions={"torch": "2"},
            workload="made up",
            protocol=PROTOCOL,
            price_per_hour_usd=0.36,
            p99_ms=p99_ms,
            max_accuracy_drop=0.01,
        ),
        "flops": {"resnet50": 1e9, "resnet18": 4e8},
        "parts_s": {part: 20.0 if kind_of(part) == "distill" else 2.0 for part in parts},
        "accuracy": {c.judgement: Accuracy(value=0.98, drop=drops.get(c.judgement, 0.0)) for c in wanted},
        "cells": {c.key: timing(call_ms(c)) for c in wanted},
    }
    return Recording(**{**content, **changes})


@pytest.fixture
def grid():
    return Grid(recording())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grid.json.gz"
    save_grid(recording(), path)
    return path


# --- the space ---------------------------------------------------------------------------------------------------


def test_there_are_392_cells_each_valid_and_with_a_name_of_its_own():
    assert len(all_cells()) == 392
    assert all(cell.is_valid for cell in all_cells())
    assert len({cell.key for cell in all_cells()}) == 392
    assert BASELINE in all_cells()


@pytest.mark.parametrize(
    "cell",
    [
        Cell("resnet50", "eager", "int8-static", 2, 1),
        Cell("resnet50", "onnxruntime", "bf16", 2, 1),
        Cell("resnet34", "openvino", "bf16", 2, 1),
        Cell("resnet50", "openvino", "bf16", 3, 1),
        Cell("resnet50", "openvino", "bf16", 2, 3),
    ],
    ids=lambda cell: cell.key,
)
def test_a_cell_that_no_runtime_can_run_or_that_has_an_unknown_level_is_not_valid(cell):
    assert not cell.is_valid
    assert cell not in all_cells()


def test_cells_that_differ_in_threads_and_batch_only_need_the_same_parts():
    one = cell_of(student="resnet18", form="openvino int8-static", threads=1, batch=64)
    assert one.parts == BEST.parts
    assert [kind_of(part) for part in one.parts] == [
        "distill",
        "export-onnx",
        "convert-openvino",
        "quantize-nncf",
        "accuracy",
    ]


def test_formats_share_the_builds_that_they_begin_with():
    floats = cell_of(student="resnet18", form="onnxruntime fp32", threads=1, batch=1)
    assert BEST.builds[:2] == floats.builds
    assert BEST.judgement != floats.judgement


def test_the_model_as_given_needs_no_build():
    assert BASELINE.builds == ()
    assert BASELINE.parts == (BASELINE.judgement,)


@pytest.mark.parametrize("form", FORMATS)
def test_every_recipe_keeps_the_order_of_transforms_and_ends_in_what_its_runtime_loads(form):
    recipe = recipe_of(cell_of(student=TEACHER, form=form, threads=2, batch=1), distill_s=10.0)
    formats = {"eager": ModelFormat.TORCH, "onnxruntime": ModelFormat.ONNX, "openvino": ModelFormat.OPENVINO}
    assert check_order(ModelFormat.TORCH, recipe.steps) is formats[recipe.runtime]
    assert {kind_of(part) for cell in all_cells() for part in cell.builds} <= set(TRANSFORM_NAMES)


def test_a_student_is_trained_by_the_first_step_within_the_time_of_the_protocol():
    step = step_of(BEST.builds[0], distill_s=7.0, seed=3)
    assert step.transform == "distill"
    assert step.settings == {"student": "resnet18", "max_s": 7.0, "seed": 3}


# --- cost accounting ---------------------------------------------------------------------------------------------


def test_a_build_is_paid_once_by_whoever_needs_it_first(grid):
    meter = Meter(grid)
    first, again = BEST, cell_of(student="resnet18", form="openvino int8-static", threads=1, batch=1)
    other = cell_of(student="resnet18", form="openvino fp32", threads=1, batch=1)
    assert meter.price_s(first) == 20 + 4 * 2 + 1.5
    assert meter.pay(first) == {part: 20.0 if kind_of(part) == "distill" else 2.0 for part in first.parts}
    assert meter.price_s(again) == 1.5
    assert meter.price_s(other) == 2 + 1.5  # its own accuracy; the student and its files are there
    assert meter.pay(again) == {}
    assert meter.pay(other) == {other.judgement: 2.0}
    assert meter.spent_s == pytest.approx(29.5 + 1.5 + 3.5)


WHOLE = Grid(recording())


@given(st.permutations(SMALL))
def test_what_a_set_of_cells_costs_does_not_depend_on_the_order(order):
    meter = Meter(WHOLE)
    for cell in order:
        meter.pay(cell)
    parts = {part for cell in SMALL for part in cell.parts}
    assert meter.built == parts
    expected = math.fsum(WHOLE.part_s(p) for p in parts) + math.fsum(WHOLE.measuring_s(c) for c in SMALL)
    assert meter.spent_s == pytest.approx(expected)


# --- figures -----------------------------------------------------------------------------------------------------


def test_the_figure_is_the_price_of_a_thousand_requests_at_the_median_time():
    cell = cell_of(student=TEACHER, form="eager fp32", threads=2, batch=4)
    seen = Grid(recording((BASELINE, cell), cells={BASELINE.key: timing(1.0), cell.key: timing(20.0, 0.0)})).truth(cell)
    assert seen.cost_usd == pytest.approx(0.36 / 3600 * 1000 * 0.020 / 4)


def test_a_batch_of_several_must_fit_the_slo_twice():
    one = cell_of(student=TEACHER, form="eager fp32", threads=2, batch=1)
    two = cell_of(student=TEACHER, form="eager fp32", threads=2, batch=2)
    slow = Grid(recording((one, two), p99_ms=10.0, cells={one.key: timing(6.0), two.key: timing(6.0)}))
    assert slow.truth(one).feasible
    assert not slow.truth(two).feasible
    assert slow.truth(two).accurate


def test_an_accuracy_drop_beyond_what_is_allowed_is_infeasible_at_every_batch():
    lossy = Grid(recording(drops={BEST.judgement: 0.02}))
    assert not any(lossy.truth(c).feasible for c in lossy.cells if c.judgement == BEST.judgement)
    assert lossy.best.cell.judgement != BEST.judgement


def test_the_best_cell_is_good_and_so_is_nothing_that_costs_more_by_a_tenth(grid):
    assert grid.best.cell == BEST
    assert grid.is_good(BEST)
    assert [cell for cell in grid.cells if grid.is_good(cell)] == [BEST]


def test_a_grid_without_a_feasible_cell_says_so():
    with pytest.raises(GridError, match="no cell of the grid keeps every constraint"):
        _ = Grid(recording(p99_ms=0.001)).best


def test_without_noise_a_measurement_is_the_truth_and_with_noise_it_is_near_it_and_repeatable(grid):
    assert grid.measure(BEST, None) == grid.truth(BEST)
    noisy = [grid.measure(BEST, np.random.default_rng(seed)) for seed in range(40)]
    assert noisy == [grid.measure(BEST, np.random.default_rng(seed)) for seed in range(40)]
    errors = np.log([one.cost_usd / grid.truth(BEST).cost_usd for one in noisy])
    assert 0.002 < errors.std() < 0.05
    assert errors.std() == pytest.approx(np.mean([one.sd for one in noisy]), rel=0.5)
    assert all(one.feasible for one in noisy)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=400))
def test_thinning_keeps_the_first_and_the_last_call_and_never_more_than_there_is_room_for(times):
    thinned = thinned_us(np.asarray(times))
    assert len(thinned) == min(len(times), KEPT)
    assert thinned[0] == pytest.approx(times[0] * 1e3, rel=1e-3)
    assert thinned[-1] == pytest.approx(times[-1] * 1e3, rel=1e-3)


# --- files -------------------------------------------------------------------------------------------------------


def test_a_grid_comes_back_as_it_was_written_and_the_same_content_gives_the_same_bytes(file, tmp_path):
    assert load_grid(file).recording == recording()
    save_grid(recording(), tmp_path / "again.gz")
    assert (tmp_path / "again.gz").read_bytes() == file.read_bytes()


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def without(*path):
    def damage(content):
        tree = json.loads(gzip.decompress(content))
        inner = tree
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]
        return gzip.compress(json.dumps(tree).encode())

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (truncated, "is damaged, or no gzip file"),
        (flipped, "is damaged, or no gzip file"),
        (lambda _: b"hello", "is damaged, or no gzip file"),
        (lambda _: gzip.compress(b"hello"), "is no recorded grid: its text"),
        (lambda _: gzip.compress(b"\xff\xfe"), "is no recorded grid: its text"),
        (without("provenance", "hardware"), r"is no recorded grid: provenance\.hardware"),
        (without("parts_s", BEST.builds[0]), "lacks the seconds of 'resnet18: distill'"),
        (without("accuracy", BEST.judgement), "lacks the accuracy of resnet18 with openvino int8-static"),
        (without("flops", "resnet18"), "lacks the FLOPs of resnet18"),
        (without("cells", BASELINE.key), "lacks the model as given"),
    ],
)
def test_a_damaged_grid_is_refused_with_a_sentence_that_says_what_to_do(file, damage, complaint):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(GridError, match=complaint) as caught:
        load_grid(file)
    assert str(file) in str(caught.value)
    assert "python -m simulations.search record" in str(caught.value)


def test_a_grid_with_a_cell_of_another_search_is_refused(file):
    save_grid(recording(cells={**recording().cells, "resnet34 eager fp32": timing(1.0)}), file)
    with pytest.raises(GridError, match="none of this search: resnet34 eager fp32"):
        load_grid(file)


def test_the_command_answers_a_missing_grid_with_a_sentence_and_exit_code_2(tmp_path, capsys):
    assert main(["--grid", str(tmp_path / "none.gz")]) == 2
    assert "no such file" in capsys.readouterr().out


# --- searches ----------------------------------------------------------------------------------------------------


def test_random_finds_the_best_and_tries_every_cell_once(grid):
    histories = [history for _, history in search(grid, Random(Briefing.of(grid), 0), None)]
    tried = [one.cell for one in histories[-1]]
    assert sorted(tried) == sorted(grid.cells)
    assert tried[0] == BASELINE
    assert incumbent(histories[-1]).cell == BEST
    assert run(grid, "random", 0, noisy=False).seconds < math.inf


@pytest.mark.parametrize("strategy", [HillClimbing, Tpe])
def test_a_peer_never_pays_twice_for_a_cell_and_ends_when_all_were_tried(grid, strategy):
    if strategy is Tpe:
        pytest.importorskip("optuna", reason="Optuna is part of the extra `bench`")
    tried = [history[-1].cell for _, history in search(grid, strategy(Briefing.of(grid), 0), None)]
    assert sorted(tried) == sorted(grid.cells)


def test_hill_climbing_reaches_the_only_summit_without_a_restart(grid):
    climber = HillClimbing(Briefing.of(grid), 1)
    best, tried = None, 0
    for _, history in search(grid, climber, None):
        best, tried = incumbent(history), len(history)
        if best.cell == BEST:
            break
    assert best.cell == BEST
    assert tried < len(grid.cells)


def test_hill_climbing_leaves_an_infeasible_start_for_what_misses_by_less():
    grid = Grid(recording(p99_ms=2.0))  # most batches are too slow
    assert run(grid, "hill climbing", 0, noisy=False).seconds < math.inf


def test_tpe_is_given_cells_of_the_grid_only_when_some_are_missing():
    pytest.importorskip("optuna", reason="Optuna is part of the extra `bench`")
    holed = tuple(cell for cell in SMALL if cell.batch != 2 or cell.threads == 2)
    grid = Grid(recording(holed))
    tried = [history[-1].cell for _, history in search(grid, Tpe(Briefing.of(grid), 0), None)]
    assert sorted(tried) == sorted(holed)


def test_infertunes_policy_finds_a_good_cell_and_stops_by_itself(grid):
    histories = [history for _, history in search(grid, Infertune(Briefing.of(grid), 0), None)]
    assert grid.is_good(incumbent(histories[-1]).cell)
    assert len(histories[-1]) < len(grid.cells)


def test_what_a_search_is_told_before_the_first_trial_holds_nothing_that_was_measured(grid):
    briefing = Briefing.of(grid)
    slower = recording(cells={c.key: timing(100 * call_ms(c)) for c in SMALL})
    assert Briefing.of(Grid(slower)) == briefing
    assert briefing.flops == {"resnet50": 1.0, "resnet18": 0.4}


def test_infertunes_policy_does_not_try_batches_that_can_hardly_keep_the_slo():
    slow = Grid(recording(p99_ms=14.0))  # two batches of 4 take 35 ms in eager mode, and 4 ms in INT8 on OpenVINO
    tried = [history[-1].cell for _, history in search(slow, Infertune(Briefing.of(slow), 0), None)]
    assert not [cell for cell in tried if cell.format == "eager fp32" and cell.batch == 4]
    assert slow.is_good(BEST)
    assert BEST in tried


def test_a_search_that_stops_before_it_found_a_good_cell_took_for_ever(grid, monkeypatch):
    class Idle:
        def __init__(self, *_):
            pass

        def next(self, _):
            return None

    monkeypatch.setitem(STRATEGIES, "idle", Idle)
    outcome = run(grid, "idle", 0, noisy=False)
    assert outcome.seconds == math.inf
    assert outcome.trials == 1
    assert outcome.reached == pytest.approx(grid.truth(BASELINE).cost_usd / grid.best.cost_usd)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_is_the_same_for_the_same_seed(grid, name):
    if name == "Optuna TPE":
        pytest.importorskip("optuna", reason="Optuna is part of the extra `bench`")
    assert run(grid, name, 3, noisy=True) == run(grid, name, 3, noisy=True)


# --- recording ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    with Worker(TORCH_MODULES, logs) as heavy, Worker(LIGHT_MODULES, logs) as light:
        yield {True: heavy, False: light}


@pytest.fixture(scope="module")
def workload(workers, tmp_path_factory):
    spec = WorkloadSpec.model_validate(
        {
            "name": "small",
            "model": {"factory": f"{USER_CODE}:build"},
            "evaluation": {"factory": f"{USER_CODE}:data"},
        }
    )
    outcome = workers[True].run(
        "tools.workloads.loading:materialize",
        {"spec": spec.model_dump(mode="json"), "home": str(tmp_path_factory.mktemp("home"))},
        label="load",
        limit_s=60,
    )
    assert isinstance(outcome, Returned), outcome
    return WorkloadInfo.model_validate(outcome.value)


def recorder(workload, workers, folder, progress=None):
    return Recorder(workload, PROTOCOL, folder, workers, progress or Progress(), folder / "progress.json")


WANTED = [cell for cell in all_cells() if cell.student == TEACHER and cell.format in FORMATS[:3:2] and cell.batch < 4]


def test_recording_measures_every_cell_and_goes_on_where_it_was_interrupted(workload, workers, tmp_path):
    said = []
    assert record_cells(recorder(workload, workers, tmp_path), WANTED[:3], said.append) == {}
    begun = Progress.read(tmp_path / "progress.json")
    assert set(begun.cells) == {cell.key for cell in WANTED[:3]}
    assert record_cells(recorder(workload, workers, tmp_path, begun), WANTED, said.append) == {}
    whole = Progress.read(tmp_path / "progress.json")
    assert set(whole.cells) == {cell.key for cell in WANTED}
    assert whole.cells.items() >= begun.cells.items()
    assert set(whole.parts_s) == {part for cell in WANTED for part in cell.parts}
    assert whole.accuracy[BASELINE.judgement] == Accuracy(value=1.0, drop=0.0)
    assert all(1 <= len(one.samples_us) <= KEPT for one in whole.cells.values())
    assert record_cells(recorder(workload, {}, tmp_path, whole), WANTED, said.append) == {}  # no worker is asked
    assert Progress.read(tmp_path / "progress.json") == whole


def test_what_cannot_be_built_is_named_and_the_rest_is_recorded(workload, workers, tmp_path):
    unknown = cell_of(student="resnet18", form="eager fp32", threads=2, batch=1)  # the workload has no students
    failures = record_cells(recorder(workload, workers, tmp_path), [unknown, BASELINE], lambda _: None)
    assert list(failures) == ["resnet18 eager fp32 threads=2"]
    assert list(Progress.read(tmp_path / "progress.json").cells) == [BASELINE.key]


def test_flops_of_a_model_count_a_multiply_add_as_two(workload, workers, tmp_path):
    one = recorder(workload, workers, tmp_path)
    one.count_flops(TEACHER)
    assert one.progress.flops == {TEACHER: 2 * (16 * 3 * 9 * 16 * 16 + 256 * 5)}
