"""Trace and freeze a torch module as TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.transforms.base import Stage
from tools.transforms.example import fixed_length_note

RTOL, ATOL = 1e-2, 1e-3
"""A trace is the same arithmetic: it differs by rounding, or by far more."""


class Script:
    """Traces on calibration items: control flow that depends on the data is frozen as the trace took it.

    So are loops over a sequence's steps: such a trace is wrong at any other length, which a run at a second one shows.
    It is then made at the length that all items are padded to, which the artifact says.
    """

    name: ClassVar[str] = "script"
    stage: ClassVar[Stage] = Stage.EXPORT
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCHSCRIPT
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,
        settings: Mapping[str, JsonScalar],  # noqa: ARG002
        root: Path,
    ) -> BuildResult:
        """Trace, freeze, save."""
        import torch

        fixed_length = None
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript; here it is one candidate
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # accuracy is measured on the result
            traced = _trace(artifact, workload, padded=False)
            if workload.sequence is not None and not _takes_any_length(traced, artifact, workload):
                traced, fixed_length = _trace(artifact, workload, padded=True), workload.sequence.length
            frozen = torch.jit.freeze(traced)
            made = write_artifact(
                root,
                ModelFormat.TORCHSCRIPT,
                artifact.precision,
                lambda folder: frozen.save(str(folder / model_file_name(ModelFormat.TORCHSCRIPT))),
                fixed_batch=artifact.fixed_batch,
            )
        notes = () if fixed_length is None else (fixed_length_note(fixed_length),)
        return BuildResult(artifact=made.model_copy(update={"fixed_length": fixed_length}), notes=notes)


def _trace(artifact: ArtifactRef, workload: WorkloadInfo, *, padded: bool) -> Any:
    import torch

    from tools.transforms.example import EXPORT_BATCH, example_call
    from tools.workloads.modules import load_module

    arguments, keywords = example_call(workload, artifact.fixed_batch or EXPORT_BATCH, padded=padded)
    module = load_module(artifact)
    if keywords:
        traced: Any = torch.jit.trace(module, example_kwarg_inputs=keywords, strict=False)  # type: ignore[no-untyped-call]
    else:
        traced = torch.jit.trace(module, arguments, strict=False)  # type: ignore[no-untyped-call]
    return traced.eval()


def _takes_any_length(traced: Any, artifact: ArtifactRef, workload: WorkloadInfo) -> bool:
    """Whether a trace gives at another length what the model gives there."""
    import torch

    from tools.transforms.example import EXPORT_BATCH
    from tools.workloads.modules import call_module, load_module
    from tools.workloads.sequences import batch_length, longest_batch, resized, served_batch

    sequence = workload.sequence
    assert sequence is not None
    size = artifact.fixed_batch or EXPORT_BATCH
    batch = longest_batch(workload, workload.calibration, size)  # steps that the trace leaves out must matter
    length = batch_length(sequence, batch)
    if length == batch_length(sequence, served_batch(workload, workload.calibration, size)):
        batch = resized(sequence, batch, max(length // 2, 1))
    expected = call_module(load_module(artifact), batch)
    try:
        found = call_module(traced, batch)
    except RuntimeError as error:
        print(f"the trace takes one length only: {error}")  # noqa: T201  to the log
        return False
    return all(
        a.shape == b.shape and torch.allclose(torch.from_numpy(a), torch.from_numpy(b), rtol=RTOL, atol=ATOL)
        for a, b in zip(expected, found, strict=True)
    )
