"""The model: a function that takes nothing and returns a `torch.nn.Module`."""

import torch
import torchvision

CLASSES = 10


def build() -> torch.nn.Module:
    """Return MobileNetV3-Small, untrained: (n, 3, 64, 64) float32 to (n, 10) logits."""
    model: torch.nn.Module = torchvision.models.mobilenet_v3_small(num_classes=CLASSES)
    return model
