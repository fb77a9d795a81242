"""Train the net, make one layer hard to quantize, and write `weights.safetensors`.

Run it once from a checkout: `python -m simulations.sensitive.train [folder]`. It takes less than a minute on two cores,
and nothing where the file is there already.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from simulations.sensitive.data import training
from simulations.sensitive.model import MIDDLE, build

EPOCHS = 6
BATCH = 50
LEARNING_RATE = 1e-2
SEED = 0
DECADES = 4.0
"""From the smallest to the largest factor of a channel between `before` and `planted`."""


def main() -> None:
    """Make the weights in the folder that is given, or in this file's own, unless they are there."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    weights = folder / "weights.safetensors"
    if weights.is_file():
        sys.stdout.write(f"{weights} is there already.\n")
        return
    model = train()
    plant(model)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as aside:  # Ctrl-C leaves no half of a file
        save_file(model.state_dict(), Path(aside) / weights.name)
        (Path(aside) / weights.name).replace(weights)
    sys.stdout.write(f"Wrote {weights}.\n")


def train() -> torch.nn.Module:
    """Train from a fixed seed, with AdamW and a one-cycle learning rate; return the model in eval mode."""
    torch.manual_seed(SEED)
    batches = list(training())
    images = torch.from_numpy(np.concatenate([inputs for inputs, _ in batches]))
    labels = torch.from_numpy(np.concatenate([targets for _, targets in batches]))
    model = with_normalization(build()).train()
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images))[: steps * BATCH].view(steps, BATCH):
            loss = torch.nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return without_normalization(model.eval())


def with_normalization(model: torch.nn.Module) -> torch.nn.Module:
    """Put a batch normalization behind each convolution: it trains much faster so."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, torch.nn.Conv2d):
            setattr(model, name, torch.nn.Sequential(layer, torch.nn.BatchNorm2d(layer.out_channels)))
    return model


def without_normalization(model: torch.nn.Module) -> torch.nn.Module:
    """Fold each batch normalization into its convolution, so that the model is as `build` makes it."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, torch.nn.Sequential):
            convolution, normalization = layer
            assert isinstance(convolution, torch.nn.Conv2d)
            assert isinstance(normalization, torch.nn.BatchNorm2d)
            setattr(model, name, torch.nn.utils.fuse_conv_bn_eval(convolution, normalization))
    return model


def plant(model: torch.nn.Module, decades: float = DECADES) -> None:
    """Give the channels between two convolutions very different ranges, so that the model computes the same in float.

    Each channel that `before` makes is multiplied by a factor, and `planted` divides by it: ReLU lets positive factors
    through. INT8 has one scale for all channels of an activation, and one for all inputs of an output channel's
    weights: large channels take the levels from small ones, and in the weights the other way round.

    Args:
        model: of `build`; changed in place.
        decades: powers of ten between the smallest and the largest factor; their negative undoes it.
    """
    order = torch.randperm(MIDDLE, generator=torch.Generator().manual_seed(SEED))
    factors = torch.logspace(-decades / 2, decades / 2, MIDDLE)[order]
    before, planted = model.get_submodule("before"), model.get_submodule("planted")
    assert isinstance(before, torch.nn.Conv2d)
    assert isinstance(planted, torch.nn.Conv2d)
    assert before.bias is not None
    with torch.no_grad():
        before.weight.mul_(factors[:, None, None, None])
        before.bias.mul_(factors)
        planted.weight.div_(factors[None, :, None, None])


if __name__ == "__main__":
    main()
