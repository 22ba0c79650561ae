import copy
from pathlib import Path

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.training import config

SHIPPED = sorted((Path(config.__file__).parent / "configs").glob("*.toml"))
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
    assert {"multitask-compact", "multitask-full"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads(path):
    loaded = config.load(path)
    assert loaded.name == path.stem
    assert set(loaded.data.batch) == {"glaucoma", "disc", "cup", "fovea"}


def test_a_file_says_what_the_configuration_holds(plan, write_config):
    loaded = config.load(write_config(plan))
    assert loaded.model_dump(mode="json", exclude={"data": {"sets"}}) == {
        **plan,
        "data": {key: value for key, value in plan["data"].items() if key != "sets"},
    }
    assert loaded.data.sets[0].weights == plan["data"]["sets"][0]["weights"]


def test_a_configuration_survives_json(plan, build):
    own = build(plan)
    assert config.Config.model_validate_json(own.model_dump_json()) == own


def test_every_missing_key_is_named(plan, write_config):
    for path, table in tables(plan):
        for key in table.keys() - OPTIONAL:
            assert f"{dotted((*path, key))}: Field required" in refusal(write_config(changed(plan, path, key)))


def test_every_unknown_key_is_named(plan, write_config):
    for path, _ in tables(plan):
        message = refusal(write_config(changed(plan, path, "colour", 1)))
        assert f"{dotted((*path, 'colour'))}: Extra inputs are not permitted" in message


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


def test_all_mistakes_are_listed_at_once(plan, write_config):
    wrong = changed(changed(plan, ("schedule",), "lr"), ("network",), "depth", 3)
    message = refusal(write_config(wrong))
    assert "schedule.lr" in message
    assert "network.depth" in message


def test_a_task_that_no_set_teaches_is_refused(plan, write_config):
    message = refusal(write_config(changed(plan, ("data", "sets", 0), "weights", {"disc": 1.0})))
    assert "task glaucoma has a batch size, but no set teaches it" in message


def test_a_cache_below_the_size_is_refused(plan, write_config):
    assert "geometry.cache" in refusal(write_config(changed(plan, ("geometry",), "cache", 63)))


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
