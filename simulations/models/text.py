"""A text encoder and its data: which package of Python's standard library does a function come from?

The data are the functions in the source code of the Python at hand, so they differ a little from version to version.
Which item evaluates, and which trains, depends on its text alone: a quarter evaluates, and none of it was trained on
with any version. The model is a transformer that takes token ids and a mask, (n, length) int64 each, of up to 128.
"""

import ast
import hashlib
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

VOCABULARY = 4096
LONGEST = 128
PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")
CALIBRATION_ITEMS = 200
BATCH = 100
_TOKEN = re.compile(r"\w+|[^\w\s]")

Labels = npt.NDArray[np.int64]


class Block(torch.nn.Module):
    """Attention and a perceptron, each behind a layer normalization and beside a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = torch.nn.LayerNorm(width)
        self.queries_keys_values = torch.nn.Linear(width, 3 * width)
        self.mix = torch.nn.Linear(width, width)
        self.perceptron_norm = torch.nn.LayerNorm(width)
        self.perceptron = torch.nn.Sequential(
            torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width)
        )

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, length, width) of the same; tokens look at those where the mask, (n, 1, 1, length), is true."""
        parts = self.queries_keys_values(self.attention_norm(hidden)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        hidden = hidden + self.mix(mixed.transpose(1, 2).flatten(2))
        widened: torch.Tensor = hidden + self.perceptron(self.perceptron_norm(hidden))
        return widened


class Encoder(torch.nn.Module):
    """Embeds tokens, lets them look at each other, and classifies their mean."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(VOCABULARY, width)
        self.positions = torch.nn.Embedding(LONGEST, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, len(PACKAGES))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return (n, packages) logits."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.tokens(input_ids) + self.positions(places)
        there = attention_mask > 0
        for block in self.blocks:
            hidden = block(hidden, there[:, None, None, :])
        weights = there.to(hidden.dtype)[:, :, None]
        mean = (self.norm(hidden) * weights).sum(1) / weights.sum(1)
        logits: torch.Tensor = self.head(mean)
        return logits


def build() -> torch.nn.Module:
    """Return it, untrained."""
    return Encoder()


def evaluation() -> Iterator[tuple[list[str], Labels]]:
    """Yield the quarter of the functions that evaluates, as text."""
    return _batches(lambda quarter: quarter == 0)


def calibration() -> Iterator[tuple[list[str], Labels]]:
    """Yield 200 of the functions to train with, of all packages in turn."""
    return _batches(lambda quarter: quarter != 0, CALIBRATION_ITEMS)


def training() -> Iterator[tuple[list[str], Labels]]:
    """Yield the functions to train with."""
    return _batches(lambda quarter: quarter != 0)


def tokenize(texts: list[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Return ids and mask of texts, (n, 128) each: words and signs by their hash, so that no vocabulary is needed."""
    ids = np.zeros((len(texts), LONGEST), np.int64)
    mask = np.zeros((len(texts), LONGEST), np.int64)
    for row, text in enumerate(texts):
        tokens = _tokens(text)
        ids[row, : len(tokens)] = [1 + zlib.crc32(token.encode()) % (VOCABULARY - 1) for token in tokens]
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _batches(wanted: Callable[[int], bool], at_most: int | None = None) -> Iterator[tuple[list[str], Labels]]:
    """Yield the functions whose quarter is wanted, mixed, in an order that depends on their texts alone."""
    items = [(digest, text, label) for digest, text, label in _functions() if wanted(digest[0] % 4)][:at_most]
    for start in range(0, len(items), BATCH):
        chunk = items[start : start + BATCH]
        yield [text for _, text, _ in chunk], np.array([label for _, _, label in chunk], np.int64)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())[:LONGEST]


def _functions() -> list[tuple[bytes, str, int]]:
    """Return digest, text and package of each function, in the order of the digests.

    Of functions with the same tokens there is one, and none if they are in two packages.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, tuple[str, set[int]]] = {}
    for label, package in enumerate(PACKAGES):
        for file in sorted((library / package).rglob("*.py")):
            source = file.read_text(encoding="utf-8-sig")
            lines = source.splitlines()
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                    found.setdefault(" ".join(_tokens(text)), (text, set()))[1].add(label)
    return sorted(
        (hashlib.sha256(tokens.encode()).digest(), text, min(labels))
        for tokens, (text, labels) in found.items()
        if len(labels) == 1
    )
