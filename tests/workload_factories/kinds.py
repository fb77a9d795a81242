"""Tiny models of many kinds, and their data, as a person would write them."""

import numpy as np
import torch
from torch.nn import functional
from torchvision.models import VisionTransformer

ITEMS = 24
LONGEST = 12
WORDS = 50


def convolutional():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )


def transformer():
    return VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4)


def images():
    rng = np.random.default_rng(0)
    yield rng.standard_normal((ITEMS, 3, 16, 16)).astype(np.float32), rng.integers(0, 4, ITEMS)


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(6, 8, batch_first=True)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, steps):
        return self.head(self.lstm(steps)[0][:, -1])


def recurrent():
    return Recurrent()


def steps():
    rng = np.random.default_rng(1)
    yield rng.standard_normal((ITEMS, 10, 6)).astype(np.float32), rng.integers(0, 4, ITEMS)


class Encoder(torch.nn.Module):
    """Attends to tokens alone; gives logits for the text and for each token."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, 16)
        self.places = torch.nn.Embedding(LONGEST, 16)
        self.project = torch.nn.Linear(16, 48)
        self.head = torch.nn.Linear(16, 4)
        self.tag = torch.nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        hidden = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        queries, keys, values = self.project(hidden).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=attention_mask[:, None, None, :] > 0
        )
        hidden = hidden + mixed.transpose(1, 2).flatten(2)
        mask = attention_mask[:, :, None].float()
        return {"logits": self.head((hidden * mask).sum(1) / mask.sum(1)), "tags": self.tag(hidden)}


def encoder():
    return Encoder()


class Layers(torch.nn.Module):
    """torch's own encoder layers, given the mask as padding."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, 16)
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, input_ids, attention_mask):
        hidden = self.layers(self.words(input_ids), src_key_padding_mask=attention_mask == 0)
        return self.head(hidden[:, 0])


def layers():
    return Layers()


class Looped(torch.nn.Module):
    """A recurrent cell in a loop of Python, whose number of steps is the length."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, 8)
        self.cell = torch.nn.GRUCell(8, 8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, input_ids, attention_mask):
        state = torch.zeros(input_ids.shape[0], 8)
        for step in range(input_ids.shape[1]):
            there = attention_mask[:, step, None].float()
            state = there * self.cell(self.words(input_ids[:, step]), state) + (1 - there) * state
        return self.head(state)


def looped():
    return Looped()


def texts():
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, LONGEST + 1, ITEMS)
    lengths[3] = LONGEST
    mask = (np.arange(LONGEST) < lengths[:, None]).astype(np.int64)
    for start in range(0, ITEMS, 8):
        part = slice(start, start + 8)
        ids = rng.integers(1, WORDS, (8, LONGEST)) * mask[part]
        yield {"input_ids": ids, "attention_mask": mask[part]}, rng.integers(0, 4, 8)


def sentences():
    """Texts as they come: strings of letters."""
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(list("abcdef"), rng.integers(1, LONGEST))) for _ in range(ITEMS)]
    yield np.array(words), rng.integers(0, 4, ITEMS)


def tokenize(strings):
    ids = np.zeros((len(strings), LONGEST), np.int64)
    for row, text in enumerate(strings):
        ids[row, : len(text)] = [ord(letter) - 96 for letter in text]
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}


def tagged():
    """A target for each token: sequences are padded with -1."""
    for inputs, _ in texts():
        yield inputs, np.where(inputs["attention_mask"] == 1, inputs["input_ids"] % 3, -1)


def tagging(outputs, targets):
    """The share of an item's tokens that have the right tag."""
    there = targets >= 0
    return ((outputs[1].argmax(2) == targets) & there).sum(1) / there.sum(1)


class Branching(torch.nn.Module):
    """What it computes depends on what it sees."""

    def __init__(self):
        super().__init__()
        self.one, self.other = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

    def forward(self, steps):
        last = steps[:, -1]
        if float(last.abs().max()) > 2.5:
            return self.one(last)
        return self.other(last)


def branching():
    return Branching()
