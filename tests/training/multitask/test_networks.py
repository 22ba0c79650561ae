import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from funduscope.engine import models
from funduscope.engine.errors import SettingsError
from funduscope.engine.runners.onnx_runtime import OnnxRuntime
from funduscope.training.multitask.networks import MAPS, OUTPUTS, TASKS, Deployed, MultiTaskUNet

VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's places of the convolutions in `features`
VGG16_FILE = "vgg16_features_tv_imagenet1k_v1.fp16.safetensors"


def counted(width):
    with torch.device("meta"):
        network = MultiTaskUNet(width, 0.8)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MultiTaskUNet(0.125, 0.5)


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_size_at_width_1_is_the_sources_with_vgg_16():
    assert counted(1.0) == 22_578_820


def test_the_compact_network_has_1_4_million_parameters():
    assert counted(0.25) == 1_414_564


def test_convolutions_have_torchvisions_names(network):
    names = {name for name in network.state_dict() if name.startswith("encoder.features.")}
    assert names == {f"encoder.features.{k}.{part}" for k in VGG16 for part in ("weight", "bias")}


def test_norms_keep_running_statistics(network):
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 13 + 8
    assert all(norm.track_running_stats for norm in norms)


def test_logits_have_one_value_a_picture_and_one_a_pixel(network, images):
    logits = network(images)
    assert {name: tuple(logit.shape) for name, logit in logits.items()} == {
        "glaucoma": (3,),
        "disc": (3, 64, 64),
        "cup": (3, 64, 64),
        "fovea": (3, 64, 64),
    }


@pytest.mark.parametrize("size", [16, 48, 80])
def test_any_multiple_of_16_is_a_size(network, size):
    maps = network.eval()(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    assert maps["disc"].shape == (1, size, size)


def calls_of(network, images, tasks):
    """The names of decoder and heads that ran for the asked tasks."""
    called, hooks = set(), []
    parts = {"decoder": network.decoder[0], "glaucoma": network.glaucoma, **dict(network.heads.items())}
    for name, part in parts.items():
        hooks.append(part.register_forward_hook(lambda *_, name=name: called.add(name)))
    assert tuple(network(images, tasks)) == tasks
    for hook in hooks:
        hook.remove()
    return called


def test_glaucoma_needs_no_decoder(network, images):
    assert calls_of(network, images, ("glaucoma",)) == {"glaucoma"}


@pytest.mark.parametrize("task", MAPS)
def test_a_map_needs_the_decoder_and_its_own_head_only(network, images, task):
    assert calls_of(network, images, (task,)) == {"decoder", task}


def test_all_tasks_run_everything(network, images):
    assert calls_of(network, images, TASKS) == {"decoder", *TASKS}


def test_a_task_alone_gives_what_it_gives_beside_the_others(network, images):
    network.eval()
    together = network(images)
    for task in TASKS:
        assert torch.equal(network(images, (task,))[task], together[task])


@pytest.mark.parametrize("task", TASKS)
def test_reach_is_what_the_tasks_loss_reaches(network, images, task):
    network(images, (task,))[task].sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    reached = {id(parameter) for parameter in network.reach(task)}
    assert with_gradient == {name for name, parameter in network.named_parameters() if id(parameter) in reached}


def test_reach_names_no_parameter_twice(network):
    for task in TASKS:
        reached = [id(parameter) for parameter in network.reach(task)]
        assert len(reached) == len(set(reached))


def largest_difference(network, images):
    """Between pictures alone and in one batch, over all outputs."""
    together = Deployed(network)(images)
    alone = zip(*(Deployed(network)(images[k : k + 1]) for k in range(len(images))), strict=True)
    return max((whole - torch.cat(parts)).abs().max().item() for whole, parts in zip(together, alone, strict=True))


@torch.no_grad()
def test_in_use_a_picture_does_not_depend_on_its_batch(network, images):
    for _ in range(3):
        network(images)  # running statistics other than the first ones
    assert largest_difference(network.eval(), images) < 1e-5


@torch.no_grad()
def test_with_batch_statistics_it_would(network, images):
    assert largest_difference(network, images) > 1e-3


@torch.no_grad()
def test_dropout_is_off_in_use(network, images):
    first = network.eval()(images, ("glaucoma",))["glaucoma"]
    assert torch.equal(network(images, ("glaucoma",))["glaucoma"], first)
    network.glaucoma.train()
    assert not torch.equal(network(images, ("glaucoma",))["glaucoma"], first)


@torch.no_grad()
def test_the_deployed_network_gives_probabilities_in_the_contracts_order(network, images):
    network.eval()
    outputs = Deployed(network)(images)
    for name, output in zip(("disc", "cup", "fovea", "glaucoma"), outputs, strict=True):
        assert torch.equal(output, torch.sigmoid(network(images)[name]))
        assert output.dtype == torch.float32
        assert 0 <= output.min() <= output.max() <= 1


@torch.no_grad()
def test_pixels_are_scaled_and_centred_inside_the_network(network):
    seen = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    image[..., 0] = 255
    network.eval()(image)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected)


def vgg_weights():
    own = MultiTaskUNet(0.125, 0.5).encoder.features.state_dict()
    return {f"features.{name}": torch.full(tensor.shape, 0.25, dtype=torch.float16) for name, tensor in own.items()}


def test_features_are_loaded_and_norms_left_alone(tmp_path):
    save_file(vgg_weights() | {"classifier.0.bias": torch.zeros(3)}, tmp_path / "own.safetensors")
    network = MultiTaskUNet(0.125, 0.5)
    norms = {name: tensor.clone() for name, tensor in network.encoder.norms.state_dict().items()}
    network.load_imagenet(tmp_path / "own.safetensors")
    assert all((tensor == 0.25).all() for tensor in network.encoder.features.state_dict().values())
    assert all(torch.equal(tensor, norms[name]) for name, tensor in network.encoder.norms.state_dict().items())


@pytest.mark.parametrize("damage", ["another width", "a layer is missing", "a layer too many"])
def test_features_of_another_network_are_refused(tmp_path, damage):
    weights = vgg_weights()
    if damage == "a layer is missing":
        del weights["features.28.bias"]
    elif damage == "a layer too many":
        weights["features.30.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / "own.safetensors")
    network = MultiTaskUNet(0.25 if damage == "another width" else 0.125, 0.5)
    with pytest.raises(SettingsError, match=r"own\.safetensors"):
        network.load_imagenet(tmp_path / "own.safetensors")


@pytest.mark.data
def test_imagenet_features_load_at_width_1(data_root):
    file = data_root.parent / "weights" / VGG16_FILE
    if not file.is_file():
        pytest.skip(f"no {VGG16_FILE} in {file.parent}; FUNDUSCOPE_DATA names the folder beside it")
    network = MultiTaskUNet(1.0, 0.5)
    network.load_imagenet(file)
    saved = load_file(file)
    assert torch.equal(network.encoder.features["28"].weight, saved["features.28.weight"].float())
    assert torch.equal(network.encoder.features["0"].bias, saved["features.0.bias"].float())


def test_the_ratio_is_learned_from_the_maps_of_disc_and_cup(network, images):
    network.eval()
    found = network(images, ("disc", "cup", "ratio"))
    assert torch.equal(found["ratio"], torch.stack([found["disc"], found["cup"]], dim=1))
    assert {id(p) for p in network.reach("ratio")} == {id(p) for p in network.reach("cup")}


def test_it_goes_on_from_an_exported_model():
    model = models.load("multitask")
    network = MultiTaskUNet(0.25, 0.5)
    network.load_exported(model.path)
    size = model.contract.geometry.size
    pictures = np.random.default_rng(0).integers(0, 255, (2, size, size, 3), np.uint8)
    with torch.no_grad():
        ours = Deployed(network).eval()(torch.from_numpy(pictures))
    with OnnxRuntime(model, max_batch=2, threads=1) as runner:
        theirs = runner(pictures)
    for name, output in zip(OUTPUTS, ours, strict=True):
        assert np.abs(output.numpy() - theirs[name]).max() < 1e-4


def test_an_exported_model_of_another_width_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="of the same width"):
        MultiTaskUNet(0.125, 0.5).load_exported(models.load("multitask").path)
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(SettingsError, match=r"no exported model|of the same width"):
        MultiTaskUNet(0.25, 0.5).load_exported(tmp_path / "no.onnx")
