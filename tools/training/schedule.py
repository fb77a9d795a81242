"""The arithmetic of a training: which items are held out, in which batches the others come, how long it may take.

Pure functions of numbers and seeds. Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

HELD_OUT_SHARE = 0.1
MOST_HELD_OUT = 500
FEWEST_STEPS = 8
"""Steps that an epoch should have: of fewer items, smaller batches are made."""
WARM_UP = 0.25
"""Share of the steps in which the learning rate rises."""
_START = 1 / 25
"""Where it starts, as a share of the highest one."""


@dataclass(frozen=True)
class Plan:
    """What fits into the time.

    Attributes:
        epochs: passes to make.
        steps: steps of each; fewer than the items need where not even one pass fits.
    """

    epochs: int
    steps: int


def plan_schedule(*, step_s: float, judging_s: float, steps: int, epochs: int, budget_s: float) -> Plan:
    """Plan as many epochs as fit into the time, but no more than are wanted, and at least one step.

    Args:
        step_s: what one step takes.
        judging_s: what judging takes after each epoch.
        steps: steps of a whole epoch.
        epochs: how many are wanted.
        budget_s: the time there is.
    """
    fit = int(budget_s / (steps * step_s + judging_s))
    if fit >= 1:
        return Plan(epochs=min(epochs, fit), steps=steps)
    return Plan(epochs=1, steps=min(steps, max(1, int((budget_s - judging_s) / step_s))))


def learning_rate_factor(step: int, total: int) -> float:
    """Return the share of the highest learning rate in a step: one cycle (Smith and Topin, 2017).

    It rises by half a cosine for `WARM_UP` of the steps, and falls by another half almost to zero in the last one.
    (`torch.optim.lr_scheduler.OneCycleLR` divides by zero where the warm-up is exactly one step.)

    Args:
        step: from 0 to `total` - 1.
        total: steps in all.
    """
    done = (step + 1) / (total + 1)
    if done < WARM_UP:
        return _START + (1 - _START) * _half_cosine(done / WARM_UP)
    return 1 - _half_cosine((done - WARM_UP) / (1 - WARM_UP))


def hold_out(n: int, seed: int) -> tuple[Indices, Indices]:
    """Split `n` items into those to train with and those to judge by: 10 %, at least one, at most 500. Both sorted."""
    order = np.random.default_rng(seed).permutation(n)
    held = min(MOST_HELD_OUT, max(1, round(n * HELD_OUT_SHARE)))
    return np.sort(order[held:]), np.sort(order[:held])


def batch_size(n: int, wanted: int) -> int:
    """Return the batch size for `n` items: as wanted, or smaller for an epoch to have `FEWEST_STEPS`; at least 2."""
    return min(wanted, max(2, n // FEWEST_STEPS))


def batches(items: Indices, size: int, generator: np.random.Generator, *, exactly: bool = False) -> list[Indices]:
    """Shuffle items into batches of about one size, so that none is left with a single item.

    Batch normalization cannot train on one item, and a short last batch would count as much as a full one.

    Args:
        items: their numbers, at least 2.
        size: about how many go into a batch, at least 2.
        generator: shuffles.
        exactly: all batches get exactly `size` items, some of them twice: for a model that takes nothing else.
    """
    order = generator.permutation(items)
    steps = count_steps(len(items), size)
    if exactly:
        return list(np.resize(order, (steps, size)))
    return list(np.array_split(order, steps))


def count_steps(n: int, size: int) -> int:
    """Return how many batches `batches` makes of `n` items: none of them with fewer than 2."""
    return max(1, min(round(n / size), n // 2))


def _half_cosine(share: float) -> float:
    """Go from 0 to 1 as `share` does, slowly at both ends."""
    return (1 - math.cos(math.pi * share)) / 2
