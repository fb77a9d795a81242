"""A sequence classifier: two layers of LSTM over the rows of an image, and a linear layer on the last state."""

import torch


class RowReader(torch.nn.Module):
    """Reads an image row by row."""

    def __init__(self, features: int = 32, hidden: int = 96, classes: int = 10) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.head = torch.nn.Linear(hidden, classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return (n, classes) logits of (n, steps, features) rows."""
        states, _ = self.lstm(rows)
        logits: torch.Tensor = self.head(states[:, -1])
        return logits


def build() -> torch.nn.Module:
    """Return it, untrained: (n, 32, 32) float32 to (n, 10) logits."""
    return RowReader()
