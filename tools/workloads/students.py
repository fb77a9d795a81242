"""Students: smaller architectures that can learn from a model.

Imported by workers only: building one needs torch and, for a student of one's own, its code.
"""

from __future__ import annotations

from collections.abc import Sequence

from tools.contracts import Student
from tools.spec import parse_student
from tools.workloads import code

_FAMILIES: dict[str, tuple[str, ...]] = {
    "torchvision.models.resnet.ResNet": ("torchvision.models:resnet18", "torchvision.models:resnet18@width=0.5"),
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
