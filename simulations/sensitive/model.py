"""The model: a small convolutional net whose layer `planted` was made hard to quantize, see `train.py`."""

from collections import OrderedDict

import torch

CLASSES = 10
MIDDLE = 32
"""Channels between `before` and `planted`."""


def build() -> torch.nn.Module:
    """Return the net, untrained: (n, 1, 32, 32) float32 to (n, 10) logits."""
    return torch.nn.Sequential(
        OrderedDict(
            stem=torch.nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1),
            stem_relu=torch.nn.ReLU(),
            before=torch.nn.Conv2d(16, MIDDLE, kernel_size=3, padding=1),
            before_relu=torch.nn.ReLU(),
            planted=torch.nn.Conv2d(MIDDLE, 32, kernel_size=3, padding=1),
            planted_relu=torch.nn.ReLU(),
            pool=torch.nn.MaxPool2d(2),
            body=torch.nn.Conv2d(32, 64, kernel_size=3, padding=1),
            body_relu=torch.nn.ReLU(),
            last=torch.nn.Conv2d(64, 32, kernel_size=3, padding=1),
            last_relu=torch.nn.ReLU(),
            average=torch.nn.AdaptiveAvgPool2d(1),
            flatten=torch.nn.Flatten(),
            head=torch.nn.Linear(32, CLASSES),
        )
    )
