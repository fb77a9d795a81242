"""Distillation: a smaller architecture learns to do what the model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Student, WorkloadInfo
from tools.errors import TransformError
from tools.training.settings import TrainingSettings, read_settings
from tools.transforms.base import Stage
from tools.transforms.example import EXPORT_BATCH, example_call
from tools.worker import stage

if TYPE_CHECKING:
    import torch


class DistillSettings(TrainingSettings):
    """Settings of `distill`."""

    student: str = Field(description="name of one of the workload's students")


class Distill:
    """A model of any format can teach; what learns is a PyTorch module. Settings: `DistillSettings`."""

    name: ClassVar[str] = "distill"
    stage: ClassVar[Stage] = Stage.DISTILL
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset(
        {ModelFormat.TORCH, ModelFormat.PT2, ModelFormat.TORCHSCRIPT, ModelFormat.ONNX}
    )
    produces: ClassVar[ModelFormat] = ModelFormat.TORCH
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = True

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Build the student, train it on the workload's training items, and write it.

        A student of the model's own architecture starts from the artifact's weights, another from what its factory
        returns.
        """
        from tools.measure.flops_torch import count_flops
        from tools.training.checks import check_fits, count_parameters
        from tools.training.learning import learn
        from tools.training.saving import save_trained
        from tools.workloads.datasets import batch_of
        from tools.workloads.sequences import served_batch
        from tools.workloads.students import build_student

        wanted = read_settings(DistillSettings, settings, self.name)
        student = _named(wanted.student, workload.students)
        stage(f"building {student.name}")
        beginner = build_student(student, artifact, classes=_classes(workload))
        fixed_batch = artifact.fixed_batch if student.factory is None else None
        check_fits(beginner.module, workload, batch_of(workload.calibration, fixed_batch or EXPORT_BATCH))
        module, is_shrunk = _shrunk(beginner.module, student, workload, fixed_batch or EXPORT_BATCH)
        one = served_batch(workload, workload.calibration, fixed_batch or 1)
        parameters, flops = count_parameters(module), count_flops(module, one)
        _refuse_unless_smaller(student, workload, parameters, flops)
        learnt = learn(module, workload, wanted, fixed_batch=fixed_batch)
        made = save_trained(
            module,
            root,
            one,
            factory=beginner.factory,
            code=beginner.code,
            fixed_batch=fixed_batch,
            student=None if student.factory is None else student.name,
            num_classes=beginner.num_classes,
            reshaped=beginner.reshaped or is_shrunk,
        )
        return BuildResult(
            artifact=made, facts={"parameters": parameters, "flops": flops, **learnt.facts}, notes=learnt.notes
        )


def _named(name: str, students: Sequence[Student]) -> Student:
    for student in students:
        if student.name == name:
            return student
    known = ", ".join(student.name for student in students) or "none"
    raise TransformError(f"the workload has no student {name!r}.", fix=f"Known: {known}.")


def _classes(workload: WorkloadInfo) -> int | None:
    """Return the size of the first output's last dimension."""
    shape = workload.outputs[0].shape
    return shape[-1] if shape else None


def _shrunk(
    module: torch.nn.Module, student: Student, workload: WorkloadInfo, batch: int
) -> tuple[torch.nn.Module, bool]:
    if student.width == 1 and student.depth == 1:
        return module, False
    from tools.workloads.shrink import shrink

    stage(f"shrinking to {student.name}")
    example = example_call(workload, batch)
    return shrink(module, example, width=student.width, depth=student.depth), True


def _refuse_unless_smaller(student: Student, workload: WorkloadInfo, parameters: int, flops: float) -> None:
    """Training takes minutes: a student that has no fewer parameters and no less to compute is not worth them."""
    from tools.measure.flops_torch import count_flops
    from tools.workloads.modules import load_module
    from tools.workloads.sequences import served_batch

    if parameters < workload.parameters:
        return
    source = workload.source
    if source.format is not ModelFormat.ONNX:
        one = served_batch(workload, workload.calibration, source.fixed_batch or 1)
        original = count_flops(load_module(source), one)
        if flops < original:
            return
    raise TransformError(
        f"the student {student.name} is no smaller than the model: it has {parameters:,} parameters, and the model "
        f"{workload.parameters:,}.",
    )
