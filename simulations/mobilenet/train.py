"""Train the model, and write `weights.safetensors` and `model.onnx` beside the specs.

Run it once from a checkout: `python -m simulations.mobilenet.train [folder]`. It takes half a minute on two cores, and
nothing where both files are there already. For a model of your own you have trained already: only the files count.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from simulations.mobilenet.data import training
from simulations.mobilenet.model import build

EPOCHS = 7
BATCH = 48
LEARNING_RATE = 3e-3
MOMENTUM = 0.1
"""Of batch normalization. torchvision's 0.01 is meant for 100,000s of steps: here its averages would lag behind."""
SEED = 0


def main() -> None:
    """Make what is missing in the folder that is given, or in this file's own."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    weights, onnx = folder / "weights.safetensors", folder / "model.onnx"
    if weights.is_file() and onnx.is_file():
        say(f"{weights} and {onnx} are there already.")
        return
    model = train()
    write_aside(weights, lambda path: save_file(model.state_dict(), path))
    write_aside(onnx, lambda path: export(model, path))
    say(f"Wrote {weights} and {onnx}.")


def train() -> torch.nn.Module:
    """Train from a fixed seed, with AdamW and a one-cycle learning rate; return the model in eval mode."""
    torch.manual_seed(SEED)
    batches = list(training())
    images = torch.from_numpy(np.concatenate([inputs for inputs, _ in batches]))
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.concatenate([targets for _, targets in batches]))
    model = build().to(memory_format=torch.channels_last).train()  # twice as fast on a CPU
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = MOMENTUM
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * steps)
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for chosen in torch.randperm(len(images))[: steps * BATCH].view(steps, BATCH):
            loss = torch.nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        say(f"epoch {epoch} of {EPOCHS}: loss {total / steps:.3f}")
    return model.to(memory_format=torch.contiguous_format).eval()


def export(model: torch.nn.Module, path: Path) -> None:
    """Write the model as one ONNX file that takes any number of images."""
    example = torch.zeros(2, 3, 64, 64)
    torch.onnx.export(
        model,
        (example,),
        path,
        dynamo=True,
        external_data=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )


def say(sentence: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it when it is whole: Ctrl-C leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as aside:
        write(Path(aside) / path.name)
        (Path(aside) / path.name).replace(path)


if __name__ == "__main__":
    main()
