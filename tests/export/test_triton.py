"""What is written for Triton is what its own protocol buffers read, and what ONNX Runtime finds in the file."""

from __future__ import annotations

from dataclasses import replace

import onnxruntime
import pytest

from funduscope.engine import models
from funduscope.engine.errors import OutputError, SettingsError
from funduscope.export import triton

NAMES = tuple(models.embedded())


def parsed(text: str):
    """As Triton reads it."""
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", exc_type=ImportError)
    from google.protobuf import text_format

    return text_format.Parse(text, pb2.ModelConfig())


@pytest.fixture(scope="module")
def loaded():
    return [models.load(name) for name in NAMES]


def test_a_repository_has_a_folder_for_each_model_with_the_file_as_it_was(loaded, tmp_path):
    written = triton.write(loaded, tmp_path / "new" / "repository")
    assert [path.name for path in written] == list(NAMES)
    for path, model in zip(written, loaded, strict=True):
        assert sorted(own.relative_to(path).as_posix() for own in path.rglob("*")) == [
            "1",
            "1/model.onnx",
            "config.pbtxt",
        ]
        assert models.load(path / "1" / "model.onnx").sha256 == model.sha256


@pytest.mark.parametrize("name", NAMES)
def test_triton_reads_names_types_and_sizes_as_the_file_has_them(name):
    model = models.load(name)
    config = parsed(triton.configuration(model))
    assert (config.name, config.backend, config.max_batch_size) == (name, "onnxruntime", 32)
    assert config.HasField("dynamic_batching")
    assert not config.instance_group
    session = onnxruntime.InferenceSession(model.data, providers=["CPUExecutionProvider"])
    types = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    for told, own in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in told] == [tensor.name for tensor in own]
        for tensor, there in zip(told, own, strict=True):
            kinds = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
            assert kinds[tensor.data_type].name == types[there.type]
            shape = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
            assert ["batch", *shape] == there.shape
            assert len(tensor.dims) > 0


def test_a_model_for_one_picture_at_a_time_is_not_batched(loaded):
    tensor = loaded[0].contract.input
    single = tensor.model_copy(update={"shape": [1, *tensor.shape[1:]]})
    contract = loaded[0].contract.model_copy(update={"input": single, "outputs": []})
    config = parsed(triton.configuration(replace(loaded[0], contract=contract)))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == single.shape
    assert not config.HasField("dynamic_batching")


def test_tensorrt_is_an_accelerator_on_a_gpu(loaded):
    config = parsed(triton.configuration(loaded[0], tensorrt=True))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    (group,) = config.instance_group
    assert group.kind == group.KIND_GPU


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "Größe", "a b"])
def test_a_name_that_is_none_of_a_folder_is_refused(loaded, tmp_path, name):
    contract = loaded[0].contract.model_copy(update={"name": name})
    with pytest.raises(SettingsError, match="letters, digits"):
        triton.write([replace(loaded[0], contract=contract)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_name_twice_and_one_that_is_there_are_refused(loaded, tmp_path):
    with pytest.raises(SettingsError, match="is named twice"):
        triton.write([loaded[0], loaded[0]], tmp_path)
    triton.write(loaded[:1], tmp_path)
    with pytest.raises(OutputError, match="is there already"):
        triton.write(loaded, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[0]]


def test_the_command_writes_all_embedded_models_or_those_that_are_named(call, tmp_path):
    done = call("export", "--triton", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(NAMES)
    assert done.stdout.splitlines() == [str(tmp_path / "all" / name) for name in NAMES]
    done = call("export", "multitask", "--triton", tmp_path / "one", "--tensorrt")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["multitask"]
    assert "tensorrt" in (tmp_path / "one" / "multitask" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "RUN"),
        (["run"], "--out"),
        (["run", "--out", "x.onnx"], "--data"),
        (["a", "b", "--out", "x.onnx", "--data", "d"], "RUN"),
        (["multitask", "--triton", "x", "--out", "y.onnx"], "--triton"),
        (["run", "--out", "x.onnx", "--data", "d", "--tensorrt"], "--tensorrt"),
    ],
)
def test_what_export_lacks_or_cannot_have_is_told_with_code_2(call, arguments, words):
    done = call("export", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
