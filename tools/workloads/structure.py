"""What structured pruning leaves behind: modules of other widths and depths, which their weights describe.

A pruned model's architecture is in no code. Its weights tell all of it: each layer's shape, and which blocks have no
weights any more. So a pruned artifact is its factory's module, made to fit.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


def fit(module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Narrow a module's layers, and leave blocks out, until its state has these shapes.

    Args:
        module: as its factory builds it; changed in place.
        shapes: of each tensor of the state, by name.

    Raises:
        TransformError: a layer of a kind that cannot be narrowed differs.
    """
    raise NotImplementedError
