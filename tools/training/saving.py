"""Writing what was trained.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, ModelFormat
from tools.errors import TransformError
from tools.workloads.modules import call_module, load_module, precision_of
from tools.workloads.weights import save_weights

Array = npt.NDArray[Any]

_SAME = 1e-3
"""Of the outputs' spread: the same weights in another memory layout round differently."""


def save_trained(module: torch.nn.Module, root: Path, example: Mapping[str, Array], **structure: Any) -> ArtifactRef:
    """Write a trained module as an artifact, and check that it can be built again from that.

    Args:
        module: for inference.
        root: where artifacts live.
        example: a batch of inputs to compare outputs with.
        structure: what `write_artifact` has to know about it: `factory`, `like`, ...

    Raises:
        TransformError: built again, it gives other outputs.
    """
    made = write_artifact(
        root,
        ModelFormat.TORCH,
        precision_of(module),
        lambda folder: save_weights(module, folder / model_file_name(ModelFormat.TORCH)),
        **structure,
    )
    expected, found = call_module(module, example), call_module(load_module(made), example)
    for wanted, got in zip(expected, found, strict=True):
        spread = float(wanted.std()) or 1.0
        if wanted.shape != got.shape or not np.allclose(wanted, got, rtol=0, atol=_SAME * spread):
            raise TransformError(
                "built again, and with the weights just learnt, the model gives other outputs.",
                where=made.factory,
                fix="Keep all that it learns in parameters and persistent buffers, so that it is in the state dict.",
            )
    return made
