"""Models that were made smaller: their weights say how, and say it again when the model is rebuilt."""

import copy

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tools.errors import TransformError
from tools.workloads.couplings import find_couplings
from tools.workloads.shrink import kept_channels, leave_out, narrow, rebuild, shrink
from tools.workloads.structure import Skip, fit, shapes_of


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(build, seed=0):
    """A model as `load_module` gives it, with statistics that tell channels apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build().eval().requires_grad_(requires_grad=False)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return module


def random(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGES = ((random(2, 3, 32, 32),), {})
TOKENS = ((torch.arange(12).reshape(2, 6),), {})


def run(module, example):
    with torch.no_grad():
        return module(*example[0], **example[1])


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def assert_fits_again(build, smaller, example):
    """What a fresh model becomes by the shapes alone computes the same with the weights."""
    again = made(build, seed=7)
    fit(again, shapes_of(smaller))
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(run(again, example), run(smaller, example))


def vit():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def mlp():
    return nn.Sequential(
        nn.Linear(10, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)
    )


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.PReLU(32),
        nn.Conv2d(32, 64, 3, groups=4),
        nn.GroupNorm(8, 64),
        nn.ConvTranspose2d(64, 24, 2, stride=2),
        nn.BatchNorm2d(24),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def dense():
    return torchvision.models.DenseNet(growth_rate=16, block_config=(2, 2), num_init_features=32, num_classes=10)


def convnext():
    setting = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([setting(16, 32, 2), setting(32, None, 2)], num_classes=10)


class Concatenating(nn.Module):
    """Concatenates features with the input itself, and then with one another."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.second = nn.Conv2d(27, 32, 3, padding=1)
        self.third = nn.Conv2d(59, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = torch.cat([x, self.first(x).relu()], 1)
        z = torch.cat([self.second(y), y], 1)
        return self.head(self.third(z).relu().mean((2, 3)))


class Attention(nn.Module):
    """Attention with its own number of heads."""

    def __init__(self):
        super().__init__()
        self.num_heads = 4
        self.qkv = nn.Linear(32, 96)
        self.proj = nn.Linear(32, 32)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, 32))


class Block(nn.Module):
    """A transformer's block."""

    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.norm = nn.LayerNorm(32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.mlp(self.norm(x))


class Transformer(nn.Module):
    """A classifier of tokens, with an embedding and plain parameters."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.position = nn.Parameter(torch.randn(1, 6, 32))
        self.blocks = nn.ModuleList([Block() for _ in range(4)])
        self.head = nn.Linear(32, 7)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """A recurrent classifier, with a layer before and some after."""

    def __init__(self, kind=nn.LSTM, hidden=None):
        super().__init__()
        self.before = nn.Linear(12, 32)
        self.recurrent = kind(32, 24, batch_first=True)
        self.after = nn.Identity() if hidden is None else nn.Sequential(nn.Linear(24, hidden), nn.ReLU())
        self.head = nn.Linear(hidden or 24, 4)

    def forward(self, x):
        return self.head(self.after(self.recurrent(self.before(x))[0][:, -1]))


class Shuffling(nn.Module):
    """Permutes its channels between two layers, which the shapes do not tell."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 1)
        self.second = nn.Conv2d(32, 32, 1)
        self.third = nn.Conv2d(32, 8, 1)

    def forward(self, x):
        y = self.first(x)
        n, c, h, w = y.shape
        y = y.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.third(self.second(y).relu())


class Twice(nn.Module):
    """Returns features that it goes on to use."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(3, 32, 3)
        self.second = nn.Conv1d(32, 32, 1)
        self.third = nn.Conv1d(32, 16, 1)

    def forward(self, x):
        features = self.first(x).relu()
        return {"features": features, "answer": self.third(self.second(features))}


class Tied(nn.Module):
    """Its head is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.wide = nn.Linear(32, 64)
        self.back = nn.Linear(64, 32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.back(self.wide(self.embedding(tokens)).relu()))


MODELS = {
    "resnet18": (torchvision.models.resnet18, IMAGES, 0.3),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, IMAGES, 0.4),
    "densenet": (dense, IMAGES, 0.4),
    "convnext": (convnext, IMAGES, 0.4),
    "vit": (vit, IMAGES, 0.9),
    "mlp": (mlp, ((random(2, 10),), {}), 0.4),
    "grouped": (grouped, IMAGES, 0.4),
    "concatenating": (Concatenating, IMAGES, 0.5),
    "transformer": (Transformer, TOKENS, 0.9),
    "tied": (Tied, TOKENS, 0.8),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_half_the_width_runs_and_is_described_by_its_weights(name):
    build, example, at_most = MODELS[name]
    module = made(build)
    smaller = shrink(module, example, width=0.5)

    assert count(smaller) < at_most * count(module)
    assert run(smaller, example).shape == run(module, example).shape
    assert_fits_again(build, smaller, example)


def test_a_bottleneck_network_narrows_in_all_its_layers():
    module = made(lambda: torchvision.models.resnet50(num_classes=10))
    couplings = find_couplings(module, IMAGES)

    covered = {part.tensor for coupling in couplings for part in coupling.slices}
    assert {name for name in module.state_dict() if not name.endswith("num_batches_tracked")} - covered == {"fc.bias"}


@pytest.mark.parametrize("scope", ["local", "global"])
def test_channels_that_are_zero_go_first_and_nothing_is_lost(scope):
    module = made(mlp)
    idle = torch.arange(0, 64, 2)
    with torch.no_grad():
        for tensor in (module[0].weight, module[0].bias, module[1].weight, module[1].bias):
            tensor[idle] = 0
        module[3].weight[:, idle] = 0
        module[3].weight[::2] = module[3].bias[::2] = 0
        module[5].weight[:, ::2] = 0
    example = ((random(4, 10),), {})
    narrowed = narrow(module, example, share=0.5, scope=scope)

    assert [layer.out_features for layer in narrowed if isinstance(layer, nn.Linear)] == [32, 16, 3]
    assert torch.allclose(run(narrowed, example), run(module, example), atol=1e-6)


def test_a_global_scope_takes_more_from_the_layer_whose_channels_differ_most():
    module = made(lambda: nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)))
    with torch.no_grad():
        module[0].weight[8:] *= 1e-3
        module[2].weight[:, 8:] *= 1e-3
    narrowed = narrow(module, ((random(2, 8),), {}), share=0.5, scope="global")

    assert narrowed[0].out_features < 32 < narrowed[2].out_features


def test_narrowing_changes_neither_the_model_nor_its_gradients():
    module = made(mlp)
    before = copy.deepcopy(module.state_dict())
    narrowed = narrow(module, ((random(2, 10),), {}), share=0.5)

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(p.requires_grad for m in (module, narrowed) for p in m.parameters())


def test_narrowing_is_the_same_each_time():
    first, second = (narrow(made(Transformer), TOKENS, share=0.5) for _ in range(2))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_attention_and_what_goes_through_it_keep_their_widths():
    narrowed = narrow(made(Transformer), TOKENS, share=0.5)

    assert {block.mlp[0].out_features for block in narrowed.blocks} == {32}
    assert {(block.attention.qkv.out_features, block.attention.proj.out_features) for block in narrowed.blocks} == {
        (96, 32)
    }
    assert narrowed.embedding.embedding_dim == narrowed.position.shape[-1] == 32


def test_features_that_are_an_output_too_keep_their_width():
    narrowed = narrow(made(Twice), ((), {"x": random(2, 3, 9)}), share=0.5)
    assert (narrowed.first.out_channels, narrowed.second.out_channels, narrowed.third.out_channels) == (32, 16, 16)


def test_a_bf16_model_stays_bf16():
    narrowed = narrow(made(mlp).bfloat16(), ((random(2, 10).bfloat16(),), {}), share=0.5)
    assert {value.dtype for value in narrowed.parameters()} == {torch.bfloat16}


def test_layers_around_a_recurrent_one_are_narrowed_and_it_is_not():
    narrowed = narrow(made(lambda: Recurrent(nn.GRU, hidden=64)), ((random(2, 5, 12),), {}), share=0.5)
    assert (narrowed.before.out_features, narrowed.recurrent.hidden_size, narrowed.after[0].out_features) == (
        32,
        24,
        32,
    )


def test_a_model_that_is_all_recurrent_is_refused_with_the_reason():
    with pytest.raises(TransformError, match=r"no layer of this Recurrent can be narrowed: .*recurrent layers keep"):
        shrink(made(Recurrent), ((random(2, 5, 12),), {}), width=0.5)


def test_layers_that_are_narrow_already_are_left_alone():
    with pytest.raises(TransformError, match="others need more than 8"):
        shrink(made(lambda: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))), ((random(2, 4),), {}), width=0.5)


def test_channels_that_cannot_be_followed_are_noticed_though_all_shapes_fit(capsys):
    narrowed = narrow(made(Shuffling), IMAGES, share=0.5)

    assert (narrowed.first.out_channels, narrowed.second.out_channels) == (32, 16)
    assert "`first` keeps its channels: the channels could not be followed" in capsys.readouterr().out


def test_a_forward_pass_that_fails_names_the_layer():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Linear(4, 32)
            self.inner = Reshaping()

        def forward(self, x):
            return self.inner(self.wide(x))

    class Reshaping(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(32, 2)

        def forward(self, x):
            return self.head(x.view(-1, 32))

    with pytest.raises(TransformError, match="`wide` cannot be narrowed: the forward pass fails in `inner`"):
        narrow(made(Stubborn), ((random(3, 4),), {}), share=0.5)


def test_a_model_that_cannot_be_traced_is_refused():
    class Raising(nn.Module):
        def forward(self, x):
            msg = "not today"
            raise RuntimeError(msg)

    with pytest.raises(TransformError, match=r"cannot be traced \(RuntimeError: not today\)"):
        narrow(Raising(), IMAGES, share=0.5)


def test_half_of_the_repeated_blocks_are_left_out_evenly():
    module = made(vit)
    smaller = shrink(module, IMAGES, depth=0.5)

    assert [isinstance(layer, Skip) for layer in smaller.encoder.layers] == [False, True, True, False]
    assert_fits_again(vit, smaller, IMAGES)


@pytest.mark.parametrize(("depth", "kept"), [(0.01, [0]), (0.5, [0, 3]), (0.75, [0, 2, 3])])
def test_the_first_block_is_always_kept(depth, kept):
    smaller = leave_out(made(Transformer), TOKENS, share=depth)
    assert [index for index, block in enumerate(smaller.blocks) if not isinstance(block, Skip)] == kept


def test_depth_and_width_go_together():
    smaller = shrink(made(Transformer), TOKENS, width=0.5, depth=0.5)

    assert [isinstance(block, Skip) or block.mlp[0].out_features for block in smaller.blocks] == [32, True, True, 32]
    assert_fits_again(Transformer, smaller, TOKENS)


def test_a_model_without_repeated_blocks_cannot_be_made_less_deep():
    with pytest.raises(TransformError, match="no blocks repeat in this Sequential"):
        shrink(made(mlp), ((random(2, 10),), {}), depth=0.5)


def test_tied_weights_stay_tied_when_the_file_has_them_once():
    module = made(Tied)
    narrower = {"embedding.weight": (50, 24), "wide.weight": (64, 24), "back.weight": (24, 64), "back.bias": (24,)}
    shapes = {**shapes_of(module), **narrower}
    del shapes["head.weight"]
    fit(module, shapes)

    assert module.head.weight is module.embedding.weight
    assert (module.head.in_features, module.embedding.embedding_dim) == (24, 24)


def test_fit_narrows_every_kind_of_layer_with_its_attributes():
    module = nn.ModuleDict(
        {
            "conv": nn.Conv2d(8, 16, 3),
            "depthwise": nn.Conv1d(16, 16, 3, groups=16),
            "grouped": nn.Conv3d(16, 32, 1, groups=4),
            "transposed": nn.ConvTranspose2d(8, 16, 2),
            "norm": nn.InstanceNorm1d(16, affine=True),
            "batch": nn.BatchNorm2d(16, affine=False),
            "layer": nn.LayerNorm(16),
            "rms": nn.RMSNorm(16),
            "group": nn.GroupNorm(4, 16),
            "prelu": nn.PReLU(16),
            "embedding": nn.Embedding(10, 16),
        }
    )
    shapes = {
        **shapes_of(module),
        "conv.weight": (8, 4, 3, 3),
        "conv.bias": (8,),
        "depthwise.weight": (8, 1, 3),
        "depthwise.bias": (8,),
        "grouped.weight": (16, 2, 1, 1, 1),
        "grouped.bias": (16,),
        "transposed.weight": (4, 8, 2, 2),
        "transposed.bias": (8,),
        "norm.weight": (8,),
        "norm.bias": (8,),
        "batch.running_mean": (8,),
        "batch.running_var": (8,),
        "layer.weight": (8,),
        "layer.bias": (8,),
        "rms.weight": (8,),
        "group.weight": (8,),
        "group.bias": (8,),
        "prelu.weight": (8,),
        "embedding.weight": (10, 8),
    }
    fit(module, shapes)

    assert shapes_of(module) == shapes
    assert [str(layer) for layer in module.values()] == [
        str(layer)
        for layer in (
            nn.Conv2d(4, 8, 3),
            nn.Conv1d(8, 8, 3, groups=8),
            nn.Conv3d(8, 16, 1, groups=4),
            nn.ConvTranspose2d(4, 8, 2),
            nn.InstanceNorm1d(8, affine=True),
            nn.BatchNorm2d(8, affine=False),
            nn.LayerNorm(8),
            nn.RMSNorm(8),
            nn.GroupNorm(4, 8),
            nn.PReLU(8),
            nn.Embedding(10, 8),
        )
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.weight": (4, 16)}, "`recurrent` is a LSTM, and such layers cannot be narrowed"),
        ({"head.weight": (4, 48)}, "`head.weight` has shape .4, 48."),
        ({"head.weight": (4, 24, 1)}, "`head.weight` has shape"),
        ({"head.bias": None}, "`head.bias` is missing in the weights"),
        ({"tail.weight": (4,)}, "the model has no `tail.weight`"),
    ],
)
def test_fit_names_what_it_cannot_make_fit(changes, message):
    module = made(Recurrent)
    shapes = {**shapes_of(module), **changes}
    if shapes["head.weight"] == (4, 16):
        shapes["recurrent.weight_hh_l0"] = (64, 16)
    with pytest.raises(TransformError, match=message):
        fit(module, {name: shape for name, shape in shapes.items() if shape is not None})


def test_weights_that_are_computed_from_others_are_not_narrowed():
    def build():
        weight_norm = torch.nn.utils.parametrizations.weight_norm
        return nn.Sequential(weight_norm(nn.Linear(10, 64)), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    narrowed = narrow(made(build), ((random(2, 10),), {}), share=0.5)
    assert [layer.out_features for layer in narrowed if isinstance(layer, nn.Linear)] == [64, 32, 3]


def test_rebuilding_with_all_weights_is_a_copy():
    module = made(mlp)
    copied = rebuild(module, module.state_dict())
    assert copied[0].weight is not module[0].weight
    assert torch.equal(copied[0].weight, module[0].weight)


@given(
    channels=st.integers(1, 400),
    share=st.floats(0.01, 1),
    groups=st.sampled_from([1, 2, 3, 4, 8, 32]),
)
def test_kept_channels_are_many_enough_and_of_a_good_number(channels, share, groups):
    channels *= groups
    kept = kept_channels(channels, channels * share, groups=groups)

    assert min(channels, 8) <= kept <= channels
    assert kept % groups == 0
    assert kept % 8 == 0 or kept == channels
    step = 8 * groups
    assert abs(kept - channels * share) <= step / 2 or kept == channels or kept <= step


@given(channels=st.integers(1, 400), low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_a_larger_share_never_keeps_less(channels, low, high):
    low, high = sorted((low, high))
    assert kept_channels(channels, channels * low) <= kept_channels(channels, channels * high)
