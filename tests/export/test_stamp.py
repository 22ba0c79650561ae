import copy
import errno
import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest

from funduscope.engine import contract, models
from funduscope.engine.errors import ModelError, OutputError
from funduscope.export.stamp import stamp


def without_metadata(model):
    copied = copy.deepcopy(model)
    del copied.metadata_props[:]
    return copied.SerializeToString(deterministic=True)


def metadata(model):
    return [(entry.key, entry.value) for entry in model.metadata_props]


def add_metadata(model, key, value):
    entry = model.metadata_props.add()
    entry.key, entry.value = key, value


def test_stamping_changes_nothing_but_the_metadata(graph, document, tmp_path):
    before = without_metadata(graph)
    written = stamp(graph, document, tmp_path / "tiny.onnx")
    assert without_metadata(onnx.load_from_string(written.data)) == before


def test_that_comparison_notices_a_single_weight(graph):
    before = without_metadata(graph)
    graph.graph.initializer[2].float_data[0] = 0.0010001
    assert without_metadata(graph) != before


def test_a_stamped_file_reads_back_as_its_contract(graph, document, tmp_path):
    written = stamp(graph, document, tmp_path / "tiny.onnx")
    assert written.path == tmp_path / "tiny.onnx"
    assert models.load(written.path) == written
    assert written.contract == document.model_copy(update={"sha256": written.sha256})


def test_the_digest_is_of_the_whole_file_with_its_own_place_zero(graph, document, tmp_path):
    written = stamp(graph, document, tmp_path / "tiny.onnx")
    blank = written.data.replace(written.sha256.encode(), contract.ZEROS.encode())
    assert hashlib.sha256(blank).hexdigest() == written.sha256
    assert written.data.count(written.sha256.encode()) == 1


def test_damage_anywhere_is_noticed(graph, document, tmp_path):
    data = stamp(graph, document, tmp_path / "tiny.onnx").data
    for place in range(0, len(data), 23):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(ModelError):
            models.verified(bytes(damaged), "tiny")
    models.verified(data, "tiny")


def test_other_metadata_is_kept(graph, document, tmp_path):
    add_metadata(graph, "author", "someone")
    written = stamp(graph, document, tmp_path / "tiny.onnx")
    kept = metadata(onnx.load_from_string(written.data))
    assert ("author", "someone") in kept
    assert [key for key, _ in kept] == ["author", contract.METADATA_KEY]


def test_stamping_again_replaces_the_contract(graph, document, tmp_path):
    first = stamp(graph, document, tmp_path / "tiny.onnx")
    loaded = onnx.load_from_string(first.data)
    renamed = first.contract.model_copy(update={"version": "2"})
    second = stamp(loaded, renamed, tmp_path / "tiny.onnx")
    assert second.contract.version == "2"
    assert second.sha256 != first.sha256
    assert len(metadata(onnx.load_from_string(second.data))) == 1
    assert stamp(onnx.load_from_string(second.data), first.contract, tmp_path / "third.onnx").data == first.data


def test_a_stamped_model_runs_as_before(graph, document, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)

    def outputs(data):
        return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"images": pixels})

    before = outputs(graph.SerializeToString())
    after = outputs(stamp(graph, document, tmp_path / "tiny.onnx").data)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert after[0].shape == (3, 8, 8)


def test_weights_outside_the_file_are_refused(graph, document, tmp_path):
    tensor = graph.graph.initializer[2]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    with pytest.raises(ModelError, match="outside its file"):
        stamp(graph, document, tmp_path / "tiny.onnx")
    assert list(tmp_path.iterdir()) == []


def other_input(model):
    model.graph.input[0].name = "pictures"


def other_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16


def fixed_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_output(model):
    model.graph.output[0].name = "rim"


def output_missing(model):
    del model.graph.output[3]


def output_too_many(model):
    model.graph.output.add().CopyFrom(model.graph.value_info.add(name="pixels"))


def other_output_shape(model):
    model.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 4


@pytest.mark.parametrize(
    "change",
    [other_input, other_size, fixed_batch, other_output, output_missing, output_too_many, other_output_shape],
    ids=lambda change: change.__name__,
)
def test_a_graph_that_is_not_the_contracts_is_refused(graph, document, tmp_path, change):
    change(graph)
    with pytest.raises(ModelError, match="the contract states"):
        stamp(graph, document, tmp_path / "tiny.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(graph, document, tmp_path, monkeypatch):
    first = stamp(graph, document, tmp_path / "tiny.onnx")

    def fails(_descriptor):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("funduscope.engine.files.os.fsync", fails)
    with pytest.raises(OutputError, match="disk full"):
        stamp(graph, document.model_copy(update={"version": "2"}), tmp_path / "tiny.onnx")
    assert models.load(tmp_path / "tiny.onnx") == first
