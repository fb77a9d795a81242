"""A user's model and data: a small convolutional net on random but separable images."""

import numpy as np
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 5),
    ).eval()


def data():
    """300 items; the label is what the model itself says, so that accuracy starts at 1."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(300, 3, 16, 16)).astype("float32")
    with torch.no_grad():
        targets = build()(torch.from_numpy(inputs)).argmax(1).numpy()
    for start in range(0, 300, 50):
        yield inputs[start : start + 50], targets[start : start + 50]


class DataDependent(torch.nn.Module):
    """Branches on a value: torch.export refuses it, eager does not care."""

    def __init__(self):
        super().__init__()
        self.inner = build()

    def forward(self, x):
        if x.sum() > 1e9:
            return self.inner(x) * 2
        return self.inner(x)


def data_dependent():
    return DataDependent().eval()
