"""Train the three models, and write their weights beside the specs.

`python -m simulations.models.train [vit] [lstm] [text]` takes about a minute on one core. The result is committed, so
nobody has to run it; with the same seed and libraries it gives the same weights, up to rounding.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from simulations.models import digits, lstm, text, vit

HERE = Path(__file__).parent
SEED = 0
BATCH = 32
WEIGHT_DECAY = 0.05
SHIFT = 4
"""Images are moved by up to so many pixels, one of the original's: 1,200 of them are few for a transformer."""

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """How one model is trained."""

    build: Callable[[], torch.nn.Module]
    epochs: int
    learning_rate: float
    load: Callable[[], Batch]
    change: Callable[[tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]
    """What each batch goes through before the model sees it."""


def main() -> None:
    """Train what is named, or all of them."""
    torch.set_num_threads(1)  # so that sums are always made in the same order
    for name in sys.argv[1:] or PLANS:
        save_file(train(name).state_dict(), HERE / f"{name}.safetensors")


def train(name: str) -> torch.nn.Module:
    """Train from a fixed seed, with AdamW and a one-cycle learning rate; return the model in eval mode."""
    plan = PLANS[name]
    torch.manual_seed(SEED)
    model: torch.nn.Module = plan.build().train()
    inputs, labels = plan.load()
    steps = len(labels) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=plan.epochs * steps)
    for epoch in range(1, plan.epochs + 1):
        total = 0.0
        for chosen in torch.randperm(len(labels))[: steps * BATCH].view(steps, BATCH):
            outputs = model(*plan.change(tuple(value[chosen] for value in inputs)))
            loss = torch.nn.functional.cross_entropy(outputs, labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        sys.stdout.write(f"{name}: epoch {epoch} of {plan.epochs}, loss {total / steps:.3f}\n")
    return model.eval()


def _digits(batches_of: Callable[[], Iterator[tuple[digits.Images, digits.Labels]]]) -> Batch:
    batches = list(batches_of())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return (torch.from_numpy(images),), torch.from_numpy(labels)


def _functions() -> Batch:
    batches = [(text.tokenize(texts), labels) for texts, labels in text.training()]
    inputs = tuple(
        torch.from_numpy(np.concatenate([batch[name] for batch, _ in batches]))
        for name in ("input_ids", "attention_mask")
    )
    return inputs, torch.from_numpy(np.concatenate([labels for _, labels in batches]))


def _shifted(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Move each image by up to `SHIFT` pixels; what leaves at one edge comes back at the other, and is background."""
    (images,) = inputs
    moves = torch.randint(-SHIFT, SHIFT + 1, (len(images), 2)).tolist()
    moved = [image.roll((down, right), (-2, -1)) for image, (down, right) in zip(images, moves, strict=True)]
    return (torch.stack(moved),)


def _cut(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Cut texts to the longest of the batch, and hide a tenth of the tokens behind id 0."""
    ids, mask = inputs
    length = int(mask.sum(1).max())
    ids, mask = ids[:, :length], mask[:, :length]
    return ids * (torch.rand(ids.shape) > 0.1), mask


PLANS = {
    "vit": Plan(
        build=vit.build, epochs=80, learning_rate=2e-3, load=lambda: _digits(digits.training_images), change=_shifted
    ),
    "lstm": Plan(
        build=lstm.build, epochs=15, learning_rate=4e-3, load=lambda: _digits(digits.training_rows), change=_shifted
    ),
    "text": Plan(build=text.build, epochs=10, learning_rate=2e-3, load=_functions, change=_cut),
}

if __name__ == "__main__":
    main()
