"""Students: smaller architectures that can learn from a model.

Imported by workers only: building one needs torch and, for a student of one's own, its code.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.contracts import ArtifactRef, ModelFormat, Student
from tools.errors import TransformError
from tools.spec import parse_student
from tools.workloads import code

if TYPE_CHECKING:
    import torch

_FAMILIES: dict[str, tuple[str, ...]] = {
    "torchvision.models.resnet.ResNet": (
        "torchvision.models:resnet18",
        "torchvision.models:resnet18@width=0.5",
        "torchvision.models:resnet18@width=0.25",
    ),
    "torchvision.models.mobilenetv3.MobileNetV3": ("torchvision.models:mobilenet_v3_small",),
    "torchvision.models.mobilenetv2.MobileNetV2": ("torchvision.models:mobilenet_v3_small",),
    "torchvision.models.efficientnet.EfficientNet": ("torchvision.models:mobilenet_v3_small",),
    "torchvision.models.convnext.ConvNeXt": ("torchvision.models:resnet18",),
    "torchvision.models.densenet.DenseNet": ("torchvision.models:resnet18",),
    "torchvision.models.vgg.VGG": ("torchvision.models:resnet18",),
}
"""Smaller models that take the same input, by the class of the model."""

_ANY = ("same@width=0.5", "same@depth=0.5")
"""What can be tried with any other architecture."""


def identify(students: Sequence[str] | None, architecture: str | None) -> tuple[Student, ...]:
    """Return what may learn from a model, each with the digest of its code.

    Args:
        students: as in a spec; None for the usual ones of the model's family.
        architecture: qualified class name of the model; None for a model that is no PyTorch module.

    Raises:
        WorkloadError: a student's file or module is missing.
    """
    if students is None:
        students = () if architecture is None else _FAMILIES.get(architecture, _ANY)
    parsed = [parse_student(text) for text in students]
    return tuple(
        s if s.factory is None else s.model_copy(update={"code": code.source_digest(s.factory)}) for s in parsed
    )


@dataclass(frozen=True)
class Beginner:
    """A student before it learnt anything, at its full width and depth.

    Attributes:
        module: for inference.
        factory: what built it.
        num_classes: what the factory was called with, where it takes that.
        code: digest of the factory's source.
        reshaped: whether the module differs from what the factory builds, as that of a pruned artifact does.
    """

    module: torch.nn.Module
    factory: str
    num_classes: int | None
    code: str | None
    reshaped: bool


def build_student(student: Student, own: ArtifactRef, *, classes: int | None) -> Beginner:
    """Build a student: the model itself, with its weights, or what the student's factory returns.

    Args:
        student: which one.
        own: the model's artifact.
        classes: given to a factory that takes `num_classes`, as torchvision's do; None to leave that out.

    Raises:
        TransformError: it is to be of the model's own architecture, and no factory builds that.
        WorkloadError: a factory fails, or returns no module.
    """
    from tools.workloads.modules import build_module, load_module

    if student.factory is None:
        if own.format is not ModelFormat.TORCH or own.factory is None:
            raise TransformError(
                f"the student {student.name} is a part of the model itself, and only a model that is given as a "
                f"PyTorch factory can be taken apart (this one is {own.format.value}).",
                fix="Give `model.factory`, or name students with factories of their own under `search.students`.",
            )
        return Beginner(
            load_module(own), own.factory, own.num_classes, code.source_digest(own.factory), reshaped=own.reshaped
        )
    num_classes = classes if _takes_num_classes(student.factory) else None
    module = build_module(student.factory, num_classes=num_classes)
    return Beginner(module, student.factory, num_classes, student.code, reshaped=False)


def _takes_num_classes(factory: str) -> bool:
    """Whether a factory has a parameter `num_classes`, or passes all keywords on."""
    try:
        parameters = inspect.signature(code.resolve(factory)).parameters.values()
    except ValueError:  # written in C
        return False
    return any(p.name == "num_classes" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
