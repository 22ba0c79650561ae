"""Engines on disk: plans, their facts, the folder, and that nothing damaged or foreign reaches a library."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from example_engine import PLAN, facts  # which conftest.py loads

from funduscope.engine import files
from funduscope.engine.errors import ModelError, OutputError, SettingsError
from funduscope.engine.runners import gpu
from funduscope.engine.runners.tensorrt import engines
from funduscope.engine.runners.tensorrt.engines import Facts, Profile, Verified, Wanted
from funduscope.engine.runners.tensorrt.runner import TensorRtRtx, Unverified

BUILD = "funduscope build"


@pytest.fixture
def engine(tmp_path) -> engines.Engine:
    return engines.write(tmp_path, facts(), PLAN)


def wanted(model, **changes) -> Wanted:
    values = {"library": "tensorrt-rtx", "library_version": "1.7.1.116", "compute_capability": "sm_89", "batch": 8}
    return Wanted(model, **(values | changes))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# what is written is read


def test_an_engine_that_was_written_is_read_again(engine, tmp_path):
    found = engines.facts_of(engine.path)
    assert found == engine
    assert engines.plan_of(found) == PLAN
    assert engine.path.read_bytes() == PLAN  # as it is: trtexec reads it too
    assert names(tmp_path) == sorted([f"{engine.facts.key}.engine", f"{engine.facts.key}.json"])


def test_a_new_engine_is_not_verified(engine):
    document = json.loads(engine.facts_path.read_text())
    assert document["verified"] is False
    assert document["format"] == "funduscope-engine/1"
    assert set(document) == set(Facts.model_fields)


def test_what_is_stated_of_an_engine_is_read_again(engine):
    passed = Verified(how="self-check", against="cd" * 32, pictures=32, device="a GPU", figures={"decision flips": 0.0})
    stated = engines.state(engine, engine.facts.model_copy(update={"verified": passed}))
    assert engines.facts_of(engine.path) == stated
    assert stated.facts.verified == passed
    assert engines.plan_of(stated) == PLAN


def test_a_deleted_engine_is_gone_and_may_be_deleted_again(engine, tmp_path):
    other = engines.write(tmp_path, facts(precision="fp16"), PLAN)
    engines.delete(engine)
    engines.delete(engine)
    assert names(tmp_path) == [other.path.name, other.facts_path.name]
    with pytest.raises(ModelError, match="no facts"):
        engines.facts_of(engine.path)


KEY = {
    "model_sha256": "ac" + "ab" * 31,
    "library": "tensorrt",
    "library_version": "1.7.1.117",
    "compute_capability": "sm_86",
    "os": "windows_amd64",
    "precision": "fp16",
    "profile": Profile(min=1, opt=8, max=16),
}


@pytest.mark.parametrize("name", KEY)
def test_whatever_an_engine_depends_on_is_in_its_key(name):
    assert facts(**{name: KEY[name]}).key != facts().key


def test_keys_of_all_of_these_differ_from_one_another():
    profiles = [Profile(min=a, opt=b, max=c) for a, b, c in ((1, 8, 32), (8, 8, 32), (1, 16, 32), (1, 8, 64))]
    keys = [facts(**{name: value}).key for name, value in KEY.items()] + [facts(profile=own).key for own in profiles]
    assert len(set(keys)) == len(keys)
    assert all(Path(key).name == key for key in keys)


def test_what_is_only_known_of_an_engine_is_not_in_its_key():
    for name, value in {"engine_sha256": "1" * 64, "workspace_mb": 1, "optimisation_level": 5, "model": "x"}.items():
        assert facts(**{name: value}).key == facts().key


# the sizes of batches


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("1,8,32", (1, 8, 32)), ("4,4,4", (4, 4, 4)), (" 1, 2 ,3", (1, 2, 3)), ("1,1,16", (1, 1, 16))],
)
def test_a_profile_is_three_rising_numbers(text, sizes):
    found = engines.profile(text)
    assert (found.min, found.opt, found.max) == sizes
    assert found.sizes == tuple(sorted(set(sizes)))


@pytest.mark.parametrize(
    "text", ["", "8", "1,8", "1,8,32,64", "8,1,32", "1,32,8", "0,1,2", "-1,1,2", "a,b,c", "1,2,3.5"]
)
def test_another_profile_is_refused(text):
    with pytest.raises(SettingsError, match=rf"batches of {text}: must be three rising numbers: .* such as 1,8,32"):
        engines.profile(text)


# what is damaged is refused


def test_every_flipped_byte_and_every_cut_is_refused(engine):
    rng = np.random.default_rng(1)
    for k in range(200):
        damaged = bytearray(PLAN)
        if k % 2:
            damaged[rng.integers(len(PLAN))] ^= int(rng.integers(1, 256))
        else:
            del damaged[rng.integers(len(PLAN)) :]
        engine.path.write_bytes(damaged)
        with pytest.raises(ModelError, match=rf"damaged: its SHA-256 is not the one in its facts; .*{BUILD}"):
            engines.plan_of(engines.facts_of(engine.path))
    engine.path.write_bytes(PLAN + b"\0")
    with pytest.raises(ModelError, match="damaged"):
        engines.plan_of(engine)
    engine.path.write_bytes(PLAN)
    assert engines.plan_of(engine) == PLAN


@pytest.mark.parametrize(
    ("library", "capability", "target"), [("tensorrt-rtx", "sm_120", " --for sm_120"), ("tensorrt", "sm_90", "")]
)
def test_a_damaged_plan_is_refused_with_the_command_that_builds_the_same_again(tmp_path, library, capability, target):
    own = engines.write(tmp_path, facts(library=library, compute_capability=capability, precision="fp16"), PLAN)
    own.path.write_bytes(PLAN[1:])
    options = f"--library {library}{target} --batch 1,8,32 --workspace-mb 1024 --optimisation-level 3 --out {tmp_path}"
    with pytest.raises(ModelError) as caught:
        engines.plan_of(own, Path("eyes/half.onnx"))
    assert str(caught.value).endswith(f"; build it again: funduscope build eyes/half.onnx {options}")
    with pytest.raises(ModelError) as caught:
        engines.plan_of(own)
    said = f"funduscope build MODEL {options} (MODEL: multitask fp16, SHA-256 {'ab' * 8})"
    assert str(caught.value).endswith(f"; build it again: {said}")


def test_a_plan_that_is_gone_or_a_folder_is_refused(engine):
    engine.path.unlink()
    with pytest.raises(ModelError, match=rf"No such file or directory; .*{BUILD}"):
        engines.plan_of(engine)
    engine.path.mkdir()
    with pytest.raises(ModelError, match=BUILD):
        engines.plan_of(engine)


def test_a_damaged_plan_is_refused_with_no_library_at_hand(engine):
    engine.path.write_bytes(PLAN[:-1])
    script = """
import sys
for name in ("tensorrt", "tensorrt_rtx", "pycuda", "cuda"):
    sys.modules[name] = None
from pathlib import Path
from funduscope.engine.runners.tensorrt import engines
from funduscope.engine.errors import ModelError
try:
    engines.plan_of(engines.facts_of(Path(sys.argv[1])))
except ModelError as error:
    print(error)
print([name for name in sys.modules if name.startswith(("tensorrt", "pycuda")) and sys.modules[name]])
"""
    done = subprocess.run([sys.executable, "-c", script, str(engine.path)], capture_output=True, text=True, timeout=120)
    told, loaded = done.stdout.splitlines()
    assert "damaged" in told
    assert loaded == "[]"


@pytest.fixture
def machine(monkeypatch):
    """A machine with a GPU and a TensorRT-RTX, of which only the version may be touched. Returns what else was."""
    touched: list[str] = []

    class Library(types.ModuleType):
        __version__ = "1.7.1.116"

        def __getattr__(self, name: str):
            if not name.startswith("__"):
                touched.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(gpu, "device", lambda index=0: gpu.Gpu("a GPU", "sm_89", "13.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", Library("tensorrt_rtx"))
    monkeypatch.setitem(sys.modules, "pycuda", types.ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", types.ModuleType("pycuda.driver"))
    return touched


def test_a_damaged_plan_never_reaches_the_library(model, tmp_path, monkeypatch, machine):
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", str(tmp_path))
    passed = Verified(how="self-check", against=model.sha256, pictures=32, device="a GPU", figures={})
    own = engines.write(tmp_path, facts(model_sha256=model.sha256, verified=passed), PLAN)
    own.path.write_bytes(PLAN[1:])
    with pytest.raises(ModelError, match="damaged"):
        TensorRtRtx(model, max_batch=8)
    assert machine == []
    own.path.write_bytes(PLAN)
    with pytest.raises(AttributeError):  # whole, it would: the test can fail
        TensorRtRtx(model, max_batch=8)
    assert machine != []


def test_an_engine_that_was_not_verified_never_reaches_the_library(model, tmp_path, monkeypatch, machine):
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", str(tmp_path))
    own = engines.write(tmp_path, facts(model_sha256=model.sha256), PLAN)
    with pytest.raises(Unverified, match="not verified on this machine yet; do so with: funduscope verify ") as caught:
        TensorRtRtx(model, max_batch=8)
    assert caught.value.engine == own
    assert machine == []


def document(**changes):
    values = facts(engine_sha256="11" * 32).model_dump() | changes
    return json.dumps({name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not the facts of an engine"),
        ("no JSON", "not the facts of an engine"),
        ("{", "not the facts of an engine"),
        ("[]", "not the facts of an engine"),
        ("null", "not the facts of an engine"),
        ("[" * 100_000, "not the facts of an engine"),
        ("\N{REPLACEMENT CHARACTER}", "not the facts of an engine"),
        (document(colour="red"), "colour: Extra inputs"),
        (document(verified=...), "verified: Field required"),
        (document(engine_sha256=...), "engine_sha256: Field required"),
        (document(format="funduscope-engine/2"), "format: Input should be 'funduscope-engine/1'"),
        (document(library="abacus"), "library: Input should be"),
        (document(verified=True), "verified"),
        (document(verified={"how": "self-check"}), "verified"),
        (document(engine_sha256="AB" * 32), "engine_sha256: String should match"),
        (document(profile={"min": 0, "opt": 8, "max": 32}), "profile.min"),
        (document(workspace_mb="1024"), "workspace_mb"),
    ],
)
def test_facts_that_are_not_facts_are_refused(engine, text, words):
    engine.facts_path.write_text(text)
    with pytest.raises(ModelError, match=BUILD) as caught:
        engines.facts_of(engine.path)
    assert words in str(caught.value)
    assert str(engine.facts_path) in str(caught.value)


def test_facts_that_are_not_text_are_refused(engine):
    engine.facts_path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelError, match=BUILD):
        engines.facts_of(engine.path)


def test_the_facts_above_would_be_read_were_they_right(engine):
    engine.facts_path.write_text(document())
    assert engines.facts_of(engine.path).facts.engine_sha256 == "11" * 32


def test_a_plan_without_facts_is_refused(engine):
    engine.facts_path.unlink()
    with pytest.raises(ModelError, match=rf"no facts beside it .*No such file.*{BUILD}"):
        engines.facts_of(engine.path)


def test_a_renamed_engine_is_refused(engine, tmp_path):
    other = facts(compute_capability="sm_120").key
    engine.path.rename(tmp_path / f"{other}.engine")
    engine.facts_path.rename(tmp_path / f"{other}.json")
    with pytest.raises(ModelError, match=rf"its facts are those of .*sm_89.*\.engine; .*{BUILD}"):
        engines.facts_of(tmp_path / f"{other}.engine")


@pytest.mark.parametrize("name", KEY)
def test_facts_that_were_changed_to_fit_are_refused(engine, name):
    changed = engine.facts.model_copy(update={name: KEY[name]})
    engine.facts_path.write_text(json.dumps(changed.model_dump()))
    with pytest.raises(ModelError, match=rf"its facts are those of .*{BUILD}"):
        engines.facts_of(engine.path)


# the order of writing


@pytest.fixture
def full(monkeypatch):
    """A disk that is full when the plan is written."""

    def refused(path, data):
        path.with_name(path.name + ".part").write_bytes(data[: len(data) // 2])
        raise OutputError("no room")

    monkeypatch.setattr(engines, "write_bytes", refused)


def test_a_plan_that_was_cut_off_has_no_facts(tmp_path, full):
    with pytest.raises(OutputError, match="no room"):
        engines.write(tmp_path, facts(), PLAN)
    assert list(tmp_path.glob("*.json")) == list(tmp_path.glob("*.engine")) == []


def test_nothing_of_an_older_plan_is_left_beside_a_new_one(engine, tmp_path):
    engine.path.with_suffix(".kernels").write_bytes(b"of the old plan")
    new = engines.write(tmp_path, facts(), PLAN[::-1])
    assert new.path == engine.path
    assert names(tmp_path) == [new.path.name, new.facts_path.name]
    assert engines.plan_of(new) == PLAN[::-1]


def test_where_a_plan_could_not_replace_another_the_old_facts_are_gone(engine, full):
    with pytest.raises(OutputError, match="no room"):
        engines.write(engine.path.parent, facts(), PLAN[::-1])
    assert not engine.facts_path.exists()
    with pytest.raises(ModelError, match="no facts"):
        engines.facts_of(engine.path)


def test_the_plan_is_whole_before_there_are_facts(tmp_path, monkeypatch):
    seen = []

    def write_text(path, text):
        seen.append((path.suffix, sorted(own.name for own in tmp_path.iterdir())))
        files.write_text(path, text)

    monkeypatch.setattr(engines, "write_text", write_text)
    own = engines.write(tmp_path, facts(), PLAN)
    assert seen == [(".json", [own.path.name])]


# the folder


def test_the_folder_is_the_variables_or_the_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert engines.folder() == tmp_path / "own"
    monkeypatch.delenv("FUNDUSCOPE_ENGINES")
    assert engines.folder() == tmp_path / "cache" / "funduscope" / "engines"
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", "")
    assert engines.folder() == tmp_path / "cache" / "funduscope" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engines.folder() == tmp_path / ".cache" / "funduscope" / "engines"


def test_the_smallest_profile_that_holds_the_batch_is_found(model, tmp_path):
    made = {
        most: engines.write(tmp_path, facts(model_sha256=model.sha256, profile=Profile(min=1, opt=1, max=most)), PLAN)
        for most in (32, 4, 128, 16)
    }
    for batch, most in {1: 4, 4: 4, 5: 16, 16: 16, 17: 32, 33: 128}.items():
        assert engines.find(wanted(model, batch=batch), tmp_path) == made[most]
    with pytest.raises(ModelError, match="for batches to 128, wanted 129"):
        engines.find(wanted(model, batch=129), tmp_path)


def test_a_verified_engine_goes_before_a_smaller_one_that_is_not(model, tmp_path):
    passed = Verified(how="self-check", against=model.sha256, pictures=32, device="a GPU", figures={})
    made = {
        (most, bool(verified)): engines.write(
            tmp_path,
            facts(model_sha256=model.sha256, profile=Profile(min=1, opt=1, max=most), verified=verified),
            PLAN,
        )
        for most, verified in ((8, False), (16, passed), (32, passed))
    }
    assert engines.find(wanted(model), tmp_path) == made[16, True]
    engines.delete(made[16, True])
    assert engines.find(wanted(model), tmp_path) == made[32, True]


def test_the_folder_that_is_searched_is_that_of_the_variable(model, tmp_path, monkeypatch):
    own = engines.write(tmp_path, facts(model_sha256=model.sha256), PLAN)
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", str(tmp_path))
    assert engines.find(wanted(model)) == own


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"library": "tensorrt"}, "for tensorrt, wanted tensorrt-rtx"),
        ({"library_version": "1.6.0"}, "for tensorrt-rtx 1.6.0, here 1.7.1.116"),
        ({"compute_capability": "sm_120"}, "for the GPU sm_120, here sm_89"),
        ({"os": "windows_amd64"}, "for the operating system windows_amd64, here "),
        ({"profile": Profile(min=1, opt=2, max=4)}, "for batches to 4, wanted 8"),
        (
            {"compute_capability": "sm_86", "library_version": "1.6.0"},
            "for tensorrt-rtx 1.6.0, here 1.7.1.116; the GPU",
        ),
    ],
)
def test_an_engine_that_does_not_fit_is_not_found_and_the_reason_is_told(model, tmp_path, changes, reason):
    own = engines.write(tmp_path, facts(model_sha256=model.sha256, **changes), PLAN)
    with pytest.raises(ModelError, match=r"no engine of .* for this machine in .*; build it: ") as caught:
        engines.find(wanted(model), tmp_path)
    command = f"funduscope build {model.path} --library tensorrt-rtx --batch 1,8,8"
    first, second = str(caught.value).splitlines()
    assert first.endswith(f"build it: {command}")
    assert second.startswith(f"  {own.path.name}: {reason}")


def test_another_models_engine_is_not_found(model, tmp_path):
    own = engines.write(tmp_path, facts(), PLAN)
    assert wanted(model).misfit(own.facts) == f"for the model {'ab' * 8}, here {model.sha256[:16]}"
    with pytest.raises(ModelError, match="no engine of") as caught:
        engines.find(wanted(model), tmp_path)
    assert own.path.name not in str(caught.value)  # there may be many, and they are as they should be


def test_a_damaged_engine_is_passed_over_and_told(model, tmp_path):
    damaged = engines.write(tmp_path, facts(model_sha256=model.sha256, profile=Profile(min=1, opt=8, max=8)), PLAN)
    damaged.facts_path.write_text("{}")
    with pytest.raises(ModelError, match=rf"no engine of(.|\n)*{damaged.facts_path.name}: not the facts of an engine"):
        engines.find(wanted(model), tmp_path)
    whole = engines.write(tmp_path, facts(model_sha256=model.sha256), PLAN)
    assert engines.find(wanted(model), tmp_path) == whole


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_or_absent_folder_has_no_engine(model, tmp_path, there):
    where = tmp_path / "engines"
    if there:
        where.mkdir()
    with pytest.raises(ModelError, match=rf"in {where}; build it: {BUILD} "):
        engines.find(wanted(model), where)
