"""A workload as a person would write it: factories for a model and its data, with a helper beside them."""

import helper_of_linear as helper
import numpy as np
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(4, 8)
        self.head = torch.nn.Linear(8, helper.CLASSES)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


class TwoInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 6)
        self.tied = torch.nn.Linear(6, 10, bias=False)
        self.tied.weight = self.embedding.weight

    def forward(self, ids, mask):
        hidden = self.embedding(ids) * mask[..., None]
        return {"logits": self.tied(hidden.mean(1)), "pooled": hidden.sum(1)}


def build():
    return Net()


def build_bf16():
    return Net().to(torch.bfloat16)


def build_two():
    return TwoInputs()


def batches(n=40):
    x = np.random.default_rng(1).standard_normal((n, 4)).astype(np.float32)
    for start in range(0, n, 16):
        part = x[start : start + 16]
        yield torch.from_numpy(part), torch.from_numpy(part.argmax(1) % helper.CLASSES)


def loader():
    x = torch.arange(80, dtype=torch.float32).reshape(20, 4)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(20) % 3), batch_size=6)


def other_items():
    yield np.random.default_rng(9).standard_normal((400, 4)).astype(np.float32), None


def one_pair():
    return np.ones((5, 4), np.float32), None


def doubles():
    yield np.random.default_rng(2).standard_normal((12, 4)), np.zeros(12, np.int64)


def named_batches():
    rng = np.random.default_rng(3)
    for _ in range(2):
        yield {"ids": rng.integers(0, 10, (8, 5)), "mask": np.ones((8, 5), np.float32)}, rng.integers(0, 10, 8)


def endless():
    while True:
        yield np.zeros((8, 4), np.float32), np.zeros(8, np.int64)


def raw():
    yield [b"\x01\x02\x03\x04"] * 6, [0, 1, 2, 0, 1, 2]
    yield [b"\x04\x03\x02\x01"] * 6, [0, 1, 2, 0, 1, 2]


def decode(items):
    return np.stack([np.frombuffer(item, np.uint8) for item in items]).astype(np.float32)


def label(outputs):
    return outputs.argmax(1).tolist()


def margin(outputs, targets):
    return np.take_along_axis(outputs, targets[:, None], 1)[:, 0] - outputs.mean(1)


def mean_margin(outputs, targets):
    return margin(outputs, targets).mean()
