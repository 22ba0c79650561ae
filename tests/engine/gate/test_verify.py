"""That the gate's evidence is real: on the models that ship, one wrong bit of one weight fails, and what means nothing passes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from funduscope.engine import models
from funduscope.engine.contract import Model
from funduscope.engine.errors import BackendError, ModelError
from funduscope.engine.gate import pictures, verify
from funduscope.engine.pictures import photo
from funduscope.engine.readers.difference import FP16
from funduscope.engine.readers.multitask import MultiTask
from funduscope.engine.runners import FakeRunner, gpu
from funduscope.engine.runners.onnx_runtime import OnnxRuntime
from funduscope.engine.runners.tensorrt import engines
from funduscope.engine.runners.tensorrt.engines import Facts, Profile
from funduscope.postprocess import anatomy

onnx = pytest.importorskip("onnx")
from funduscope.export.stamp import stamp  # noqa: E402 -- it needs onnx

FEW = 4  # views, where what is seen in so many is seen in all
LOWEST_MANTISSA, LOWEST_EXPONENT, HIGHEST_EXPONENT = 0, 23, 30  # bits of a float32


@dataclasses.dataclass
class Case:
    """A model that ships, the views that it is shown, and what it gives for them."""

    model: Model
    images: np.ndarray
    outputs: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["multitask", pytest.param("classifier", marks=pytest.mark.slow)])
def case(request) -> Case:
    model = models.load(request.param)
    images = pictures.views(model.contract.geometry.build())
    with OnnxRuntime(model, max_batch=8, threads=None) as runner:
        parts = [runner(images[k : k + 8]) for k in range(0, len(images), 8)]
    return Case(model, images, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def remembering(case: Case, change=lambda outputs: None, precision="fp32") -> FakeRunner:
    """A runner that gives what the reference gave for each picture, but for what `change(outputs)` does to a batch."""
    known = {image.tobytes(): k for k, image in enumerate(case.images)}

    def outputs(images):
        rows = [known[image.tobytes()] for image in images]
        given = {name: output[rows] for name, output in case.outputs.items()}
        change(given)
        return given

    return FakeRunner(outputs, 32, precision=precision)


@pytest.fixture
def reference(case, monkeypatch):
    """`verify.verify_model` does not compute the reference again."""

    def opened(model, *, max_batch, threads):
        assert model is case.model
        return remembering(case)

    monkeypatch.setattr(verify, "OnnxRuntime", opened)


@pytest.fixture
def remembered(case, reference):
    """The gate for a runner that remembers the reference too: `remembered(change, sizes)`; gives the report and the runner."""

    def run(change=lambda outputs: None, sizes=(1, 8, 32)):
        candidate = remembering(case, change)
        return verify.verify_model(case.model, candidate, case.images, sizes), candidate

    return run


def test_the_views_are_32_and_always_the_same(case):
    size = case.model.contract.geometry.size
    assert (case.images.shape, case.images.dtype) == ((32, size, size, 3), np.uint8)
    np.testing.assert_array_equal(case.images, pictures.views(case.model.contract.geometry.build()))
    assert len({image.tobytes() for image in case.images}) == 32


def test_there_is_something_to_see_in_most_views(case):  # on its head, an eye is not always recognised
    document = case.model.contract
    if isinstance(document, MultiTask):
        maps = [{name: output[k] for name, output in case.outputs.items()} for k in range(32)]
        found = [anatomy.measure(own, document.rules.build()) for own in maps]
        assert sum(own.vcdr is not None for own in found) > 16
        assert sum(own.fovea is not None for own in found) > 16
    assert case.outputs["glaucoma"].std() > 1e-3


@pytest.mark.parametrize("count", [FEW, pytest.param(32, marks=pytest.mark.slow)])
def test_a_model_passes_against_itself(case, reference, count):  # which was computed in batches of 8
    with OnnxRuntime(case.model, max_batch=count, threads=None) as runner:
        report = verify.verify_model(case.model, runner, case.images[:count], (1, count))
    assert report.passes(), report.lines()
    assert report.pictures == count
    assert report.strain() < 1


def test_what_the_reference_says_may_be_known_before(case, monkeypatch):
    monkeypatch.setattr(verify, "OnnxRuntime", None)  # it is not asked again
    wrong = {name: 1 - output for name, output in case.outputs.items()}
    reports = [
        verify.verify_model(case.model, remembering(case), case.images, (8,), known) for known in (case.outputs, wrong)
    ]
    assert [report.passes() for report in reports] == [True, False]


def flipped(model, bit, path):
    """The model with one bit of one weight of its first layer changed: of the one in the middle of those that are not small,
    as an unlucky one may be nearly 0 already."""
    proto = onnx.load_from_string(model.data)
    layer = next(node for node in proto.graph.node if any(name.endswith(".weight") for name in node.input[1:]))
    (weight,) = [tensor for tensor in proto.graph.initializer if tensor.name == layer.input[1]]
    values = onnx.numpy_helper.to_array(weight).copy()
    place = np.argsort(np.abs(values), axis=None)[values.size // 2]
    before = values.flat[place]
    values.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
    assert values.flat[place] != before
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return stamp(proto, model.contract, path)


def report_of(case, changed, images):
    with OnnxRuntime(changed, max_batch=8, threads=None) as runner:
        return verify.verify_model(case.model, runner, images, (8,))


@pytest.mark.parametrize("bit", [LOWEST_EXPONENT, HIGHEST_EXPONENT])
def test_one_exponent_bit_of_one_weight_of_the_first_layer_fails(case, reference, tmp_path, bit):
    report = report_of(case, flipped(case.model, bit, tmp_path / "flipped.onnx"), case.images[:FEW])
    assert not report.passes(), report.lines()


def test_the_lowest_bit_of_the_same_weight_passes(case, reference, tmp_path):  # not every change matters
    changed = flipped(case.model, LOWEST_MANTISSA, tmp_path / "flipped.onnx")
    assert changed.sha256 != case.model.sha256
    report = report_of(case, changed, case.images)
    assert report.passes(), report.lines()


def test_the_candidate_is_run_at_every_size_and_the_reference_once(remembered):
    report, candidate = remembered()
    assert report.passes()
    assert candidate.batches == [*[1] * 32, *[8] * 4, 32, 32]  # the last: one picture 32 times


def wrong_at_32(outputs):
    if len(outputs["glaucoma"]) == 32:
        outputs["glaucoma"][20] += 0.01


def test_a_candidate_that_is_wrong_at_batch_32_only_fails(remembered):
    report, _ = remembered(wrong_at_32)
    assert not report.passes()
    assert report["max |d probability|"] == pytest.approx(0.01, rel=1e-3)
    assert remembered(wrong_at_32, sizes=(1, 8))[0].passes()  # it takes the size to see it


def test_the_bounds_are_those_of_the_candidates_precision(case, remembered):
    def shifted(outputs):
        outputs["glaucoma"] += np.float32(1e-3)

    assert not remembered(shifted)[0].passes()
    report = verify.verify_model(case.model, remembering(case, shifted, "fp16"), case.images, (8,))
    assert {own.bound for own in report.figures if own.name == "max |d probability|"} == {FP16.probability}
    assert report.passes(), report.lines()


# engines: what the gate does with its verdict


@pytest.fixture
def engine(model, tmp_path):
    """The facts of an engine of the multi-task model, and bytes for a plan."""
    facts = Facts(
        format="funduscope-engine/1",
        library="tensorrt-rtx",
        library_version="1.7",
        compute_capability="sm_89",
        os=engines.this_os(),
        model="multitask",
        model_sha256=model.sha256,
        precision="fp32",
        profile=Profile(min=1, opt=2, max=4),
        workspace_mb=1024,
        optimisation_level=3,
        engine_sha256="0" * 64,
        verified=False,
    )
    return engines.write(tmp_path, facts, b"plan")


@pytest.fixture
def on_gpu(model, fake_gpu, monkeypatch):
    """ONNX Runtime in the place of TensorRT; `on_gpu(change)` makes it give other outputs."""
    opened = []

    def install(change=lambda outputs: None):
        class Runner(OnnxRuntime):
            def __init__(self, own, *, max_batch, engine, device):
                super().__init__(own, max_batch=max_batch, threads=None)
                opened.append((max_batch, engine))

            def __call__(self, images):
                outputs = dict(super().__call__(images))
                change(outputs)
                return outputs

        monkeypatch.setattr(verify, "RUNNERS", {"tensorrt-rtx": Runner})
        return opened

    return install


@pytest.fixture
def fake_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "device", lambda index=0: gpu.Gpu("A Test GPU", "sm_89", "13.0"))


@pytest.fixture(scope="module")
def few(model, cc0):
    return pictures.views_of(photo.load(cc0), model.contract.geometry.build(), 4)


def test_an_engine_that_passes_says_so_in_its_facts(model, engine, on_gpu, few):
    opened = on_gpu()
    report = verify.verify_engine(model, engine, few, "verified on clinic")
    assert report.passes()
    assert opened == [(4, engine)]
    found = engines.facts_of(engine.path)
    assert found.facts.verified == engines.Verified(
        how="verified on clinic", against=model.sha256, pictures=4, device="A Test GPU", figures=report.record()
    )
    assert engines.plan_of(found) == b"plan"
    figures = json.loads(engine.facts_path.read_text())["verified"]["figures"]
    assert figures.keys() == {own.name for own in report.figures}


def test_an_engine_that_fails_is_deleted_and_the_report_is_told(model, engine, on_gpu, few):
    def change(outputs):
        outputs["glaucoma"] = outputs["glaucoma"] + np.float32(0.01)

    on_gpu(change)
    with pytest.raises(ModelError, match=r"deleted: on A Test GPU it differs from (.|\n)*d probability.* FAILS"):
        verify.verify_engine(model, engine, few, "self-check")
    assert list(engine.path.parent.iterdir()) == []


def test_an_engine_of_another_model_is_refused_and_stays(engine, on_gpu, few):
    on_gpu()
    with pytest.raises(ModelError, match=r"it was built of another model \(multitask\) than .*classifier\.onnx"):
        verify.verify_engine(models.load("classifier"), engine, few, "self-check")
    assert engines.plan_of(engine) == b"plan"


def test_an_engine_of_a_converted_file_is_held_against_the_fp32_model(model, engine, on_gpu, few, tmp_path):
    half = converted(model, tmp_path / "half.onnx")
    (tmp_path / "fp32.onnx").write_bytes(model.data)
    facts = engine.facts.model_copy(update={"model_sha256": half.sha256, "precision": "fp16"})
    on_gpu(lambda outputs: outputs.update(glaucoma=outputs["glaucoma"] + np.float32(1e-3)))
    verify.verify_engine(half, engines.write(tmp_path, facts, b"plan"), few, "self-check")
    (found,) = [path for path in tmp_path.glob("*.engine") if half.sha256[:16] in path.name]
    assert engines.facts_of(found).facts.verified.against == model.sha256


def converted(model, path):
    """What claims to be the model in half precision."""
    return stamp(onnx.load_from_string(model.data), model.converted("fp16"), path)


def test_the_reference_is_the_fp32_model_embedded_or_beside(model, tmp_path):
    embedded = models.load("multitask")
    assert verify.reference_of(embedded) is embedded
    half = converted(embedded, tmp_path / "half.onnx")
    assert verify.reference_of(half) == embedded
    own = stamp(
        onnx.load_from_string(model.data), model.contract.model_copy(update={"name": "own"}), tmp_path / "own.onnx"
    )
    half = converted(own, tmp_path / "half.onnx")
    (tmp_path / "another.onnx").write_text("not a model")
    assert verify.reference_of(half) == own
    own.path.unlink()
    with pytest.raises(
        ModelError, match=rf"half\.onnx: the gate needs the fp32 model .*beside it \(SHA-256 {own.sha256}"
    ):
        verify.reference_of(half)


def test_without_a_gpu_an_engine_is_neither_verified_nor_deleted(model, engine, few, monkeypatch):
    def none(index=0):
        raise BackendError("no NVIDIA GPU here: told by a test")

    monkeypatch.setattr(gpu, "device", none)
    with pytest.raises(BackendError, match="told by a test"):
        verify.verify_engine(model, engine, few, "self-check")
    assert engines.facts_of(engine.path) == engine
    assert engines.plan_of(engine) == b"plan"
