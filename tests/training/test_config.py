import copy
from pathlib import Path

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.training import config

SHIPPED = sorted((Path(config.__file__).parent / "configs").glob("[!t]*.toml"))  # tables.toml is of `tables`
OPTIONAL = {"region", "disc_scale"}  # of a set: most are pictures of the full field


def tables(tree, path=()):
    """Every table of a plan, with its path."""
    yield path, tree
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("batch", "weights"):
            yield from tables(value, (*path, key))
        elif key == "sets":
            for k, own in enumerate(value):
                yield from tables(own, (*path, key, k))


@pytest.fixture(params=["multi-task", "classifier"])
def either(request, plan, classifier_plan):
    """The plan of either system."""
    return plan if request.param == "multi-task" else classifier_plan


def dotted(path):
    return ".".join(map(str, path))


def changed(plan, path, key, value=None):
    """A copy of the plan with one key set, or taken away where the value is None."""
    copied = copy.deepcopy(plan)
    table = copied
    for step in path:
        table = table[step]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return copied


def refusal(path):
    with pytest.raises(SettingsError) as error:
        config.load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    return message


def test_configurations_are_shipped():
    assert {"multitask-compact", "multitask-full", "classifier-source"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads(path):
    loaded = config.load(path)
    assert loaded.name == path.stem
    assert loaded.kind == {"multitask": "multi-task"}.get(path.stem.split("-")[0], path.stem.split("-")[0])
    if loaded.kind == "multi-task":
        assert set(loaded.data.batch) == {"glaucoma", "disc", "cup", "fovea"}
    elif loaded.kind == "disc":
        assert set(loaded.data.batch) == {"glaucoma", "disc", "cup", "ratio"}
    else:
        assert {disease for own in loaded.data.sets for disease in own.weights} == {"glaucoma", "dr"}


def test_a_file_says_what_the_configuration_holds(either, write_config):
    loaded = config.load(write_config(either))
    assert loaded.model_dump(mode="json", exclude={"data": {"sets"}}, exclude_unset=True) == {
        **either,
        "data": {key: value for key, value in either["data"].items() if key != "sets"},
    }
    for own, expected in zip(loaded.data.sets, either["data"]["sets"], strict=True):
        assert (own.path, own.weights, own.terms) == (expected["path"], expected["weights"], expected["terms"])


def test_a_configuration_survives_json(either, write_config):
    own = config.load(write_config(either))
    assert config.from_json(own.model_dump_json()) == own


DISCRIMINATORS = [((), "kind"), (("loss",), "name")]  # pydantic looks at these before all else


def test_every_missing_key_is_named(either, write_config):
    for path, table in tables(either):
        for key in table.keys() - OPTIONAL:
            if (path, key) in DISCRIMINATORS:
                continue
            message = refusal(write_config(changed(either, path, key)))
            place = (*path, "exp-uwbce", key) if path == ("loss",) else (*path, key)
            assert f"{dotted(place)}: Field required" in message


@pytest.mark.parametrize(("path", "key"), DISCRIMINATORS)
@pytest.mark.parametrize("value", [None, "neither"])
def test_a_missing_or_unknown_kind_is_named(classifier_plan, write_config, path, key, value):
    message = refusal(write_config(changed(classifier_plan, path, key, value)))
    assert f"{dotted(path) or 'file'}: " in message
    assert f"'{key}'" in message


def test_every_unknown_key_is_named(either, write_config):
    for path, _ in tables(either):
        message = refusal(write_config(changed(either, path, "colour", 1)))
        place = (*path, "exp-uwbce", "colour") if path == ("loss",) else (*path, "colour")
        assert f"{dotted(place)}: Extra inputs are not permitted" in message


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("schedule",), "steps", "many"),
        (("schedule",), "steps", 0),
        (("schedule",), "steps", 2.5),
        (("schedule",), "lr", 0.0),
        (("schedule",), "decay", 1.5),
        (("schedule",), "strategy", "mtlio"),
        (("schedule",), "fovea_loss", "l2"),
        (("network",), "width", 2.0),
        (("network",), "dropout", -0.1),
        (("geometry",), "size", 72),
        (("geometry",), "size", 48),
        (("geometry",), "fov_threshold", 256),
        (("data",), "sampler", "each"),
        (("data",), "workers", 0),
        (("data",), "batch", {"disc": 0}),
        (("data",), "batch", {"vessels": 4}),
        (("data",), "sets", "eyes"),
        (("data", "sets", 0), "region", "macula"),
        (("data", "sets", 0), "weights", {"disc": -1.0}),
        (("data", "sets", 0), "disc_scale", [0.2]),
        (("augment",), "shift", -0.1),
        (("augment",), "flip", [True]),
        (("reading",), "fovea_mode", "median"),
    ],
)
def test_a_wrong_value_is_named(plan, write_config, path, key, value):
    assert f"  {dotted((*path, key))}" in refusal(write_config(changed(plan, path, key, value)))


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("network",), "architecture", "vgg16"),
        (("network",), "input", "green"),
        (("network",), "hidden", -1),
        (("network",), "dropout", 1.0),
        (("network",), "severity", 1),
        (("geometry",), "size", 72),
        (("data",), "batch", 0),
        (("data",), "batch", {"glaucoma": 4}),
        (("data",), "sampling", "each"),
        (("data",), "augment", "none"),
        (("data",), "sets", []),
        (("data",), "shares", {"dr": 0.0}),
        (("data",), "shares", {"disc": 1.0}),
        (("data", "sets", 0), "weights", {}),
        (("data", "sets", 0), "weights", {"disc": 1.0}),
        (("data", "sets", 0), "weights", {"dr": 0.0}),
        (("schedule",), "average", 1.0),
        (("schedule",), "select", "recall"),
        (("schedule",), "steps", 0),
        (("reading",), "sensitivity", 1.0),
        (("reading",), "specificity", 0.0),
        (("reading",), "uncertain_share", 1.0),
        (("reading",), "disagreement", 1.5),
        (("reading",), "point", "best"),
    ],
)
def test_a_wrong_value_of_the_classifiers_is_named(classifier_plan, write_config, path, key, value):
    assert f"  {dotted((*path, key))}" in refusal(write_config(changed(classifier_plan, path, key, value)))


@pytest.mark.parametrize(
    ("path", "key", "value", "message"),
    [
        (("network",), "hidden", 512, "small-cnn has none: set it to 0"),
        (("network",), "imagenet", "own.safetensors", "no such weights for small-cnn"),
        (("loss",), "name", "uwbce", "linear_from: Extra inputs are not permitted"),
        (("loss",), "linear_from", 0.0, "linear_from: Input should be greater than 0"),
        (
            ("loss",),
            "linear_from",
            1e3,
            "linear_from: Input should be less than or equal to 20",
        ),  # exp(1000) is infinite
    ],
)
def test_what_does_not_go_together_is_said(classifier_plan, write_config, path, key, value, message):
    assert message in refusal(write_config(changed(classifier_plan, path, key, value)))


def test_all_mistakes_are_listed_at_once(plan, write_config):
    wrong = changed(changed(plan, ("schedule",), "lr"), ("network",), "depth", 3)
    message = refusal(write_config(wrong))
    assert "schedule.lr" in message
    assert "network.depth" in message


def test_a_task_that_no_set_teaches_is_refused(plan, write_config):
    message = refusal(write_config(changed(plan, ("data", "sets", 0), "weights", {"disc": 1.0})))
    assert "task glaucoma has a batch size, but no set teaches it" in message


@pytest.mark.parametrize("disease", ["glaucoma", "dr"])
def test_a_disease_that_no_set_teaches_is_refused(classifier_plan, write_config, disease):
    for own in classifier_plan["data"]["sets"]:
        own["weights"] = {"dr" if disease == "glaucoma" else "glaucoma": 1.0}
    assert f"no set teaches {disease}" in refusal(write_config(classifier_plan))


def test_a_set_that_stands_twice_is_refused(either, write_config):
    either["data"]["sets"].append(either["data"]["sets"][0])
    assert "a set stands twice in data.sets" in refusal(write_config(either))


def test_sets_that_figures_could_not_tell_apart_are_refused(either, write_config):
    first = either["data"]["sets"][0]
    either["data"]["sets"].append(first | {"path": f"elsewhere/{first['path']}"})
    assert "two have the same folder name" in refusal(write_config(either))
    either["data"]["sets"][-1] = first | {"path": "elsewhere/all"}
    assert "cannot be called all" in refusal(write_config(either))


def test_contrast_needs_whole_cells(classifier_plan, write_config):
    contrast = changed(classifier_plan, ("network",), "input", "contrast")
    assert config.load(write_config(contrast)).geometry.size == 64
    wrong = changed(changed(contrast, ("geometry",), "size", 80), ("geometry",), "cache", 80)
    assert "a multiple of 32 for network.input contrast" in refusal(write_config(wrong))


def test_the_cells_of_efficientnet_are_whole(classifier_plan, write_config):
    lite = changed(classifier_plan, ("network",), "architecture", "efficientnet-lite0")
    assert config.load(write_config(lite)).geometry.size == 64
    wrong = changed(changed(lite, ("geometry",), "size", 80), ("geometry",), "cache", 80)
    assert "a multiple of 32 for EfficientNet" in refusal(write_config(wrong))


def test_lesions_go_with_a_network_that_can_learn_them(classifier_plan, write_config):
    part = {"path": "drawn", "twins": "grades", "terms": "drawn", "batch": 2, "weight": 1.0}
    lite = changed(classifier_plan, ("network",), "architecture", "efficientnet-lite0")
    whole = changed(lite, ("network",), "lesions", True) | {"lesions": part}
    assert config.load(write_config(whole)).lesions.batch == 2
    assert "go together" in refusal(write_config(lite | {"lesions": part}))
    assert "go together" in refusal(write_config(changed(lite, ("network",), "lesions", True)))
    assert "resnet18 cannot" in refusal(write_config(changed(whole, ("network",), "architecture", "resnet18")))
    assert "others is none of data.sets" in refusal(write_config(changed(whole, ("lesions",), "twins", "others")))


def test_one_start_is_enough(classifier_plan, write_config):
    both = classifier_plan["network"] | {"architecture": "alexnet", "imagenet": "a.pth", "start": "b.safetensors"}
    assert "start takes the place of imagenet" in refusal(write_config(classifier_plan | {"network": both}))


def test_a_cache_below_the_size_is_refused(either, write_config):
    message = refusal(write_config(changed(either, ("geometry",), "cache", 63)))
    assert "geometry: Value error, cache is smaller than size" in message


def test_imagenet_at_another_width_is_refused(plan, write_config):
    assert "width 1 only" in refusal(write_config(changed(plan, ("network",), "imagenet", "vgg.safetensors")))


def test_what_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("steps: 4\n")
    assert "not TOML" in refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.toml")
    assert "directory" in refusal(tmp_path)


def test_a_configuration_cannot_be_changed(plan, build):
    with pytest.raises(ValueError, match="frozen"):
        build(plan).seed = 5
