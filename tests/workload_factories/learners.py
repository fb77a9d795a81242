"""Models that teach, models that learn from them, and items: small enough to train in a moment."""

import numpy as np
import torch
from torch import nn

CLASSES = 3


class Exact(nn.Module):
    """Tells the largest of the first three numbers, without fail: its logits are four times these."""

    def __init__(self, hidden=32):
        super().__init__()
        self.body = nn.Linear(4, hidden)
        self.head = nn.Linear(hidden, CLASSES)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for index in range(CLASSES):
                self.body.weight[2 * index, index], self.body.weight[2 * index + 1, index] = 1, -1
                self.head.weight[index, 2 * index], self.head.weight[index, 2 * index + 1] = 4, -4

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


def teacher():
    return Exact()


def probable_teacher():
    return nn.Sequential(Exact(), nn.Softmax(dim=1))


def nan_teacher():
    return nn.Sequential(Exact(), Jump())


class Jump(nn.Module):
    """NaN where the first logit is large, which no evaluation item has."""

    def forward(self, x):
        return torch.where(x[:, :1] > 11, torch.nan, x)


def small(num_classes):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, num_classes))


def small_with_keywords(**settings):
    return small(settings.get("num_classes", 7))


def five():
    return small(5)


def of_images():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, CLASSES))


def large():
    return Exact(hidden=64)


class Brittle(nn.Module):
    """Its outputs are NaN as soon as a weight has moved by more than `limit`."""

    def __init__(self, limit):
        super().__init__()
        self.inner = small(CLASSES)
        self.limit = limit
        self.register_buffer("start", self.inner[0].weight.detach().clone())

    def forward(self, x):
        moved = (self.inner[0].weight - self.start).abs().max()
        return torch.where(moved > self.limit, torch.nan, self.inner(x))


def brittle():
    return Brittle(0.05)


def hopeless():
    return Brittle(0.0)


class Auxiliary(nn.Module):
    """In training it returns a second tensor, as networks with auxiliary heads do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        hidden = torch.relu(self.body(x))
        return (self.head(hidden), hidden) if self.training else self.head(hidden)


def auxiliary():
    return Auxiliary()


class Tokens(nn.Module):
    """Ids and a mask to two outputs: the classes of a text, and a vector for each token."""

    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(12, width)
        self.tokens = nn.Linear(width, 6)
        self.logits = nn.Linear(width, CLASSES)

    def forward(self, ids, mask):
        hidden = self.embedding(ids)
        weights = mask[..., None].to(hidden.dtype)
        return {"logits": self.logits((hidden * weights).sum(1) / weights.sum(1)), "tokens": self.tokens(hidden)}


def token_teacher():
    return Tokens(24)


def small_tokens():
    return Tokens(8)


class Numbers(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, x):
        return 1000 * self.layers(x)


def numbers():
    return Numbers(32)


def few_numbers():
    return Numbers(6)


def items(n=600):
    x = np.random.default_rng(1).standard_normal((n, 4)).astype(np.float32)
    for start in range(0, n, 100):
        yield x[start : start + 100], x[start : start + 100, :CLASSES].argmax(1)


def held_out():
    x = np.random.default_rng(2).uniform(-2, 2, (100, 4)).astype(np.float32)
    yield x, x[:, :CLASSES].argmax(1)


def unlabelled():
    for x, _ in items():
        yield x, None


def seven():
    yield from items(7)


def thirty():
    yield from items(30)


def thirty_three():
    x = np.random.default_rng(1).standard_normal((33, 4)).astype(np.float32)
    yield x, x[:, :CLASSES].argmax(1)


def texts():
    """Texts of 3 to 9 tokens, padded to 9."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(3, 10, 240)
    mask = (np.arange(9) < lengths[:, None]).astype(np.int64)
    yield {"ids": rng.integers(1, 12, (240, 9)) * mask, "mask": mask}, rng.integers(0, CLASSES, 240)


def doubled_error(outputs, targets):
    """A loss of one's own."""
    return 2 * nn.functional.cross_entropy(outputs, targets)


def of_both(outputs, targets):
    logits, tokens = outputs
    return nn.functional.cross_entropy(logits, targets) + 0 * tokens.sum()


def no_tensor(outputs, targets):
    return 1.0


def raises(outputs, targets):
    raise KeyError("lost")


class Forgetful(nn.Module):
    """Counts its batches outside of its state."""

    def __init__(self):
        super().__init__()
        self.inner = small(CLASSES)
        self.seen = 0

    def forward(self, x):
        self.seen += self.training
        return self.inner(x) + self.seen


def forgetful():
    return Forgetful()
