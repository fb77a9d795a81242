"""Items of varying length: how long they are, how they are batched, padded and timed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.contracts import ArtifactRef, ModelFormat, Precision, Recipe, TensorSpec, WorkloadInfo
from tools.errors import TransformError, WorkloadError
from tools.measure.comparison import serve_the_same, time_turns
from tools.measure.served import load_for, load_runner
from tools.spec import SequenceSpec
from tools.workloads.datasets import write_dataset
from tools.workloads.sequence_runner import Lengths, default_buckets
from tools.workloads.sequences import (
    Cycle,
    batch_length,
    describe_sequence,
    joined,
    lengths_of,
    resized,
    served_batches,
    trimmed,
)

MASKED = SequenceSpec(mask="mask")


def items(lengths, longest=10):
    """Ids that are 7 behind an item's last token, a mask, and one number an item."""
    lengths = np.asarray(lengths)
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask == 1, 100 * np.arange(len(lengths))[:, None] + np.arange(longest), 7)
    return {"ids": ids, "mask": mask, "age": np.arange(len(lengths), dtype=np.float32)[:, None]}


def sequence(lengths, longest=10, **changes):
    info = describe_sequence(MASKED, items(lengths, longest), "data.py:items")
    return info.model_copy(update=changes)


def workload(tmp_path, lengths, longest=10, outputs=()):
    arrays = items(lengths, longest)
    ref = write_dataset(tmp_path / "data", arrays, None)
    source = ArtifactRef(
        digest="s", directory=str(tmp_path), format=ModelFormat.TORCH, precision=Precision.FP32, size_mb=1
    )
    return WorkloadInfo(
        name="w",
        digest="w",
        source=source,
        inputs=ref.inputs,
        outputs=(
            TensorSpec(name="sums", dtype="float32", shape=()),
            TensorSpec(name="tokens", dtype="int64", shape=()),
        ),
        evaluation=ref,
        calibration=ref,
        metric="cosine",
        higher_is_better=True,
        parameters=1,
        sequence=sequence(lengths, longest, outputs=tuple(outputs)),
    )


class Fake:
    """Its model sums the ids where there is a token, and returns the ids too; it keeps what it is given."""

    name = "fake"

    def __init__(self, *, one_shape=False):
        self.compiles_per_batch = one_shape
        self.loaded, self.shapes, self.settings = [], [], []

    def load(self, artifact, recipe, *, batch_size, threads, example):
        self.loaded.append(example["ids"].shape)
        self.settings.append(recipe.settings)

        def run(inputs):
            assert not self.compiles_per_batch or inputs["ids"].shape == example["ids"].shape
            self.shapes.append(inputs["ids"].shape)
            return (inputs["ids"] * inputs["mask"]).sum(1), inputs["ids"]

        return run


def load(runtime, info, size=1, **settings):
    return load_for(runtime, info.source, Recipe(runtime="fake", settings=settings), info, size, 1)


# --- what a sequence is ----------------------------------------------------------------------------------------------


def test_inputs_as_long_as_the_mask_vary_and_others_do_not():
    info = sequence([3, 10, 1])
    assert set(info.inputs) == {"ids", "mask"}
    assert info.fill == {"ids": 7, "mask": 0}
    assert info.length == 10


def test_a_pad_value_tells_lengths_where_there_is_no_mask():
    arrays = {"ids": items([3, 10, 1])["ids"]}
    info = describe_sequence(SequenceSpec(pad=7, input="ids"), arrays, "data")
    assert lengths_of(info, arrays).tolist() == [3, 10, 1]
    assert resized(info, arrays, 12)["ids"][0, 3:].tolist() == [7] * 9


def test_features_of_many_numbers_are_cut_along_their_own_axis():
    frames = np.zeros((2, 4, 6), np.float32)
    frames[0, :, :5], frames[1, :, :2] = 1, 1
    info = describe_sequence(SequenceSpec(pad=0.0, input="frames", axis=2), {"frames": frames}, "data")
    assert lengths_of(info, {"frames": frames}).tolist() == [5, 2]
    assert trimmed(info, {"frames": frames})["frames"].shape == (2, 4, 5)


@pytest.mark.parametrize(
    ("spec", "change", "expected"),
    [
        (MASKED, {"mask": np.array([[0, 1, 1], [1, 1, 0]])}, "1 of 2 items have padding before or between"),
        (MASKED, {"mask": np.array([[1, 1, 1], [1, 0, 1]])}, "the first is item 1"),
        (MASKED, {"mask": np.ones((2, 3, 1))}, "one number for each token is expected"),
        (SequenceSpec(mask="masc"), {}, "there is no input `masc`; there are ids, mask"),
        (SequenceSpec(mask="mask", inputs=("mask", "age")), {"age": np.ones((2, 5))}, "`age` has items of (5,)"),
        (SequenceSpec(pad=0, input="ids"), {"ids": np.array([[0, 4, 4], [4, 4, 0]])}, "Pad at the end only"),
        (SequenceSpec(pad=0, input="ids", axis=2), {}, "there is no axis 2"),
    ],
)
def test_what_cannot_be_cut_is_refused(spec, change, expected):
    arrays = {"ids": np.ones((2, 3), np.int64), "mask": np.ones((2, 3), np.int64), **change}
    with pytest.raises(WorkloadError) as caught:
        describe_sequence(spec, arrays, "data.py:items")
    assert expected in str(caught.value)
    assert "data.py:items" in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{}, {"mask": "m", "pad": 0, "input": "ids"}, {"pad": 0}, {"mask": "m", "input": "i"}]
)
def test_a_spec_says_in_one_way_how_long_items_are(wrong):
    with pytest.raises(ValueError, match=r"exactly one of mask and pad|go together"):
        SequenceSpec(**wrong)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_a_batch_is_as_long_as_its_longest_item_and_loses_no_token(lengths):
    arrays = items(lengths, 12)
    info = sequence(lengths, 12)
    batch = trimmed(info, arrays)
    assert batch_length(info, batch) == max(lengths)
    assert lengths_of(info, batch).tolist() == lengths
    assert (resized(info, batch, 12)["ids"] == arrays["ids"]).all()
    assert (batch["age"] == arrays["age"]).all()


def test_an_item_without_tokens_counts_as_one():
    info = sequence([3, 2])
    assert lengths_of(info, items([0, 2])).tolist() == [1, 2]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_what_is_timed_has_the_lengths_of_the_data_and_is_always_the_same(tmp_path):
    info = workload(tmp_path, [1, 2, 3, 10])
    lengths = [batch_length(info.sequence, batch) for batch in served_batches(info, 1)]
    assert {length: lengths.count(length) for length in set(lengths)} == dict.fromkeys([1, 2, 3, 10], len(lengths) // 4)
    again = [batch_length(info.sequence, batch) for batch in served_batches(info, 1)]
    other = [batch_length(info.sequence, batch) for batch in served_batches(info, 1, seed=1)]
    assert lengths == again != other


def test_every_batch_size_serves_the_same_stream_of_items(tmp_path):
    info = workload(tmp_path, [5, 2, 3, 10, 9, 1, 4])
    ones = [batch["age"][0, 0] for batch in served_batches(info, 1)]
    fours = np.concatenate([batch["age"][:, 0] for batch in served_batches(info, 4)])
    assert ones == fours[: len(ones)].tolist()


def test_without_a_sequence_one_batch_is_timed(tmp_path):
    info = workload(tmp_path, [1, 2, 3, 10]).model_copy(update={"sequence": None})
    (batch,) = served_batches(info, 2)
    assert batch["ids"].shape == (2, 10)
    runtime = Fake()
    call = load(runtime, info, 2)
    call()
    assert runtime.shapes == [(2, 10)]


def test_a_cycle_runs_its_batches_in_turn_and_can_begin_anew():
    seen = []
    cycle = Cycle(lambda batch: seen.append(batch["n"]) or (), [{"n": 0}, {"n": 1}, {"n": 2}])
    for _ in range(4):
        cycle()
    cycle.restart(2)
    for _ in range(3):
        cycle()
    assert seen == [0, 1, 2, 0, 0, 1, 0]
    assert cycle.length == 2


def test_two_sides_of_a_comparison_serve_the_same_items(tmp_path):
    info = workload(tmp_path, [5, 2, 3, 10, 9, 1, 4])
    calls = {("baseline", 1): load(Fake(), info, 1), ("candidate", 4): load(Fake(), info, 4)}
    serve_the_same(calls, 0.0)
    assert {side: call.length for (side, _), call in calls.items()} == {"baseline": 4, "candidate": 1}
    assert len(time_turns(calls["baseline", 1], 0.0)) == 8  # at least five calls, in whole turns


# --- running ---------------------------------------------------------------------------------------------------------


def test_each_batch_runs_at_its_own_length_by_default(tmp_path):
    info, runtime = workload(tmp_path, [1, 2, 3, 10]), Fake()
    load(runtime, info)
    assert len(runtime.loaded) == 1
    assert {length for _, length in runtime.shapes} == {1, 2, 3, 10}  # each once, before anything is timed


def test_buckets_pad_batches_up_and_results_stay_the_same(tmp_path):
    info, runtime = workload(tmp_path, [1, 2, 3, 10], outputs=["tokens"]), Fake(one_shape=True)
    call = load(runtime, info, buckets="4,12")
    assert sorted(runtime.loaded) == [(1, 4), (1, 12)]
    assert runtime.settings == [{}, {}]
    for batch in served_batches(info, 1)[:4]:
        sums, tokens = call()
        assert sums == (batch["ids"] * batch["mask"]).sum(1)
        assert (tokens == batch["ids"]).all()


def test_a_runtime_for_one_shape_gets_few_buckets_by_itself(tmp_path):
    info, runtime = workload(tmp_path, [1, 17, 40, 60], longest=61), Fake(one_shape=True)
    load(runtime, info)
    assert sorted(length for _, length in runtime.loaded) == [8, 32, 61]
    assert default_buckets(61) == (8, 16, 32, 61)


def test_max_length_cuts_longer_items(tmp_path):
    info, runtime = workload(tmp_path, [1, 2, 3, 10], outputs=["tokens"]), Fake()
    runner = load_runner(runtime, info.source, Recipe(runtime="fake", settings={"max_length": 2}), info, items([10]), 1)
    sums, tokens = runner(items([10]))
    assert sums.tolist() == [0 + 1]
    assert tokens.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]


def test_a_program_of_one_length_has_every_batch_padded_to_it(tmp_path):
    info, runtime = workload(tmp_path, [1, 2, 3, 10]), Fake(one_shape=True)
    artifact = info.source.model_copy(update={"fixed_length": 10})
    call = load_for(runtime, artifact, Recipe(runtime="fake"), info, 1, 1)
    call()
    assert {length for _, length in runtime.shapes} == {10}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"buckets": "4,x"}, "lengths with commas"),
        ({"buckets": "8,4"}, "must rise"),
        ({"buckets": "0,16"}, "begin with at least 1"),
        ({"buckets": "4,8"}, "the last bucket is 8, and there are batches as long as 10"),
        ({"max_length": 0}, "at least 1"),
        ({"max_length": "5"}, "whole number"),
        ({"max_length": True}, "whole number"),
    ],
)
def test_senseless_lengths_are_refused(settings, expected):
    with pytest.raises(TransformError, match=expected):
        Lengths.of(settings, sequence([3, 10]), one_shape=False)


def test_lengths_are_refused_where_nothing_varies(tmp_path):
    info = workload(tmp_path, [1, 2]).model_copy(update={"sequence": None})
    with pytest.raises(TransformError, match="has no `sequence`"):
        load(Fake(), info, buckets="16")


def test_buckets_are_refused_for_a_program_of_one_length():
    with pytest.raises(TransformError, match="sequences of 10 only"):
        Lengths.of({"buckets": "8,16"}, sequence([3, 10]), one_shape=False, fixed=10)


def test_a_batch_beyond_the_last_bucket_is_refused(tmp_path):
    info = workload(tmp_path, [1, 2, 3, 10])
    runner = load_runner(Fake(), info.source, Recipe(runtime="fake", settings={"buckets": "16"}), info, items([10]), 1)
    with pytest.raises(WorkloadError, match="length 17 fits into no bucket"):
        runner(items([17], 17))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True), st.integers(1, 50), st.integers(1, 50))
def test_a_batch_is_padded_to_the_smallest_bucket_that_holds_it(buckets, length, max_length):
    lengths = Lengths(tuple(sorted(buckets)), max_length)
    kept = lengths.kept(length)
    assert kept == min(length, max_length)
    if kept > max(buckets):
        with pytest.raises(WorkloadError):
            lengths.padded(kept)
    else:
        assert lengths.padded(kept) == min(bucket for bucket in buckets if bucket >= kept)


def test_outputs_of_different_lengths_are_joined_at_the_items_own():
    info = sequence([3, 10], outputs=("tokens",))
    parts = [np.ones((2, 3, 2)), np.ones((1, 10, 2))]
    whole = joined(parts, info, varies=True)
    assert whole.shape == (3, 10, 2)
    assert whole.sum() == 2 * 3 * 2 + 10 * 2
    assert joined([np.ones((2, 3)), np.ones((1, 3))], info, varies=False).shape == (3, 3)
