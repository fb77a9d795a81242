"""A small vision transformer."""

import torch
from torchvision.models import VisionTransformer


def build() -> torch.nn.Module:
    """Return it, untrained: (n, 3, 32, 32) float32 to (n, 10) logits, 16 patches of 8x8."""
    model: torch.nn.Module = VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )
    return model
