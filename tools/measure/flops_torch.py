"""What a torch module is made of, and how much work it does: parameters, zeros, FLOPs.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tools.contracts import JsonScalar
from tools.measure.layers_torch import ModuleCall, flop_counter


def count_flops(module: torch.nn.Module, inputs: Mapping[str, np.ndarray]) -> float:
    """Return the floating-point operations of one item; a multiply-add counts as two, and zeros like other weights.

    Counted are matrix products, convolutions and attention.

    Args:
        module: for inference.
        inputs: a batch, by input name.
    """
    call = ModuleCall.of(module, inputs)
    with flop_counter() as counter:
        call()
    return float(counter.get_total_flops()) / len(next(iter(inputs.values())))


def structure_facts(module: torch.nn.Module, inputs: Mapping[str, np.ndarray]) -> dict[str, JsonScalar]:
    """Return `parameters` (tied ones once), `nonzero_parameters`, `sparsity` (share of zeros) and `flops`.

    Args:
        module: for inference.
        inputs: a batch, by input name.
    """
    parameters = sum(value.numel() for value in module.parameters())
    nonzero = sum(int(value.count_nonzero()) for value in module.parameters())
    return {
        "parameters": parameters,
        "nonzero_parameters": nonzero,
        "sparsity": 1 - nonzero / parameters if parameters else 0.0,
        "flops": count_flops(module, inputs),
    }
