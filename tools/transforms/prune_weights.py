"""Unstructured pruning: single weights become zero, and layers keep their shapes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.contracts.base import Contract
from tools.errors import TransformError
from tools.training.settings import read_settings
from tools.transforms.base import Stage
from tools.transforms.prune_channels import write_pruned

if TYPE_CHECKING:
    import torch


class PruneWeightsSettings(Contract):
    """Settings of `prune-weights`."""

    ratio: float = Field(0.4, gt=0, lt=1, description="share of the weights that become zero, the smallest ones")
    scope: Literal["layer", "global"] = Field(
        "global", description="`layer`: this share of each layer's; `global`: of all layers' together"
    )
    pattern: Literal["2:4"] | None = Field(
        None, description="zeros where hardware can skip them: two in each four along the inputs; half of the weights"
    )


class PruneWeights:
    """Sets weights of convolutions and linear layers to zero, by magnitude. Settings: `PruneWeightsSettings`."""

    name: ClassVar[str] = "prune-weights"
    stage: ClassVar[Stage] = Stage.PRUNE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCH
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Set the weights to zero, and write the model."""
        from tools.workloads.modules import load_module

        wanted = read_settings(PruneWeightsSettings, settings, self.name)
        before = load_module(artifact)
        module = copy.deepcopy(before)
        layers = _layers(module)
        if wanted.pattern is not None:
            if given := sorted({"ratio", "scope"} & wanted.model_fields_set):
                raise TransformError(f"the pattern {wanted.pattern} leaves no choice of `{given[0]}`.")
            pruned = _prune_two_of_four(layers)
        else:
            pruned = _prune_smallest(layers, wanted.ratio, wanted.scope)
        if not pruned:
            raise TransformError("no convolution or linear layer of this model has weights that can be set to zero.")
        made = write_pruned(module, artifact, workload, root, before=before, reshaped=artifact.reshaped)
        some = "" if pruned == len(layers) else f" in {pruned} of {len(layers)} layers"
        note = (
            f"The smallest weights{some} are zero now. They are still stored, and multiplied with: on a CPU, size and "
            "speed usually stay what they were, and only a compressed file is smaller."
        )
        return made.model_copy(update={"notes": (note,)})


def _layers(module: torch.nn.Module) -> list[Any]:
    """Return the convolutions and linear layers that hold a weight, tied ones once."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    found: dict[int, nn.Module] = {}
    for layer in module.modules():
        weight = dict(layer.named_parameters(recurse=False)).get("weight")
        if isinstance(layer, _ConvNd | nn.Linear) and weight is not None:
            found.setdefault(id(weight), layer)
    return list(found.values())


def _prune_smallest(layers: list[Any], ratio: float, scope: str) -> int:
    from torch.nn.utils import prune

    if not layers:
        return 0
    if scope == "global":
        prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=ratio)
    for layer in layers:
        if scope == "layer":
            prune.l1_unstructured(layer, "weight", amount=ratio)  # type: ignore[no-untyped-call]
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
    return len(layers)


def _prune_two_of_four(layers: list[Any]) -> int:
    """Prune the layers that have their inputs by fours; returns how many these are."""
    from torch.nn.utils import prune

    pruned = 0
    for layer in layers:
        dim = 0 if getattr(layer, "transposed", False) else 1
        if layer.weight.shape[dim] % 4 == 0:
            prune.custom_from_mask(layer, "weight", two_of_four(layer.weight, dim))  # type: ignore[no-untyped-call]
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
            pruned += 1
    return pruned


def two_of_four(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """Return a mask that is one for the two largest (in magnitude) of each four along a dimension, the first of equals.

    Args:
        weight: of any shape; its size along `dim` is a multiple of four.
        dim: along which the fours lie.
    """
    import torch

    last = weight.detach().abs().movedim(dim, -1)
    fours = last.reshape(*last.shape[:-1], -1, 4)
    largest = fours.argsort(dim=-1, descending=True, stable=True)[..., :2]
    mask = torch.zeros_like(fours).scatter_(-1, largest, 1)
    return mask.flatten(-2).movedim(-1, dim)
