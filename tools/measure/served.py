"""Loading a candidate as it is served: for one batch size, and for sequences of any length."""

from __future__ import annotations

from tools.contracts import ArtifactRef, Recipe, WorkloadInfo
from tools.errors import TransformError
from tools.runtimes import Arrays, Runner, Runtime
from tools.workloads.pixels import PixelRunner, to_pixels
from tools.workloads.sequence_runner import SETTINGS, Lengths, SequenceRunner
from tools.workloads.sequences import Cycle, resized, served_batches, varying_outputs


def load_for(  # noqa: PLR0917  what a run is made of
    runtime: Runtime,
    artifact: ArtifactRef,
    recipe: Recipe,
    workload: WorkloadInfo,
    size: int,
    threads: int,
    *,
    seed: int = 0,
) -> Cycle:
    """Load an artifact for one batch size; returns the call to time, which runs held-out items.

    Where items vary in length it runs one batch after the other, each as it would be served; else the same one always.

    Args:
        runtime: loads the artifact.
        artifact: what is run.
        recipe: its precision and settings.
        workload: whose items.
        size: items in a batch.
        threads: CPU threads.
        seed: of the order in which items of varying length come.

    Raises:
        TransformError: the recipe's settings for lengths make no sense for this workload.
    """
    batches = served_batches(workload, size, seed=seed)
    if artifact.pixels is not None:  # before the clock runs: requests come as pixels
        batches = [to_pixels(artifact.pixels, batch) for batch in batches]
    runner = _load(runtime, artifact, recipe, workload, batches[0], threads)
    if isinstance(runner, SequenceRunner):
        runner.prepare(batches)
    return Cycle(runner, batches)


def load_runner(  # noqa: PLR0917  as `load_for`
    runtime: Runtime, artifact: ArtifactRef, recipe: Recipe, workload: WorkloadInfo, example: Arrays, threads: int
) -> Runner:
    """Load an artifact for batches of the workload's items like the example, and of any length where lengths vary.

    Raises:
        TransformError: as `load_for`.
    """
    if artifact.pixels is None:
        return _load(runtime, artifact, recipe, workload, example, threads)
    pixels = to_pixels(artifact.pixels, example)
    return PixelRunner(_load(runtime, artifact, recipe, workload, pixels, threads), artifact.pixels)


def _load(  # noqa: PLR0917  as `load_for`
    runtime: Runtime, artifact: ArtifactRef, recipe: Recipe, workload: WorkloadInfo, example: Arrays, threads: int
) -> Runner:
    sequence = workload.sequence
    size = len(next(iter(example.values())))
    if sequence is None:
        refused = sorted(SETTINGS & recipe.settings.keys())
        if refused:
            raise TransformError(f"`{refused[0]}` is for items of varying length, and the workload has no `sequence`.")
        return runtime.load(artifact, recipe, batch_size=size, threads=threads, example=example)
    # OpenVINO and what compiles for a batch size do so for a length too
    one_shape = runtime.compiles_per_batch or runtime.name == "openvino"
    lengths = Lengths.of(recipe.settings, sequence, one_shape=one_shape, fixed=artifact.fixed_length)
    own = {name: value for name, value in recipe.settings.items() if name not in SETTINGS}
    bare = recipe.model_copy(update={"settings": own})

    def load(length: int) -> Runner:
        resized_example = resized(sequence, example, length)
        return runtime.load(artifact, bare, batch_size=size, threads=threads, example=resized_example)

    return SequenceRunner(load, sequence, varying_outputs(workload), lengths, one_shape=one_shape)
