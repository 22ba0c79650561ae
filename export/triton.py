"""A model repository for the Triton Inference Server: of each model its file, and a configuration made from its contract."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..engine.contract import Model, Tensor
from ..engine.errors import OutputError, SettingsError
from ..engine.files import write_bytes, write_text

MAX_BATCH = 32  # pictures that Triton may put together
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def write(models: Sequence[Model], folder: Path, *, tensorrt: bool = False) -> list[Path]:
    """Write `NAME/config.pbtxt` and `NAME/1/model.onnx` of each model into a folder.

    Args: tensorrt: see `configuration`. Returns: the models' folders.
    Raises: SettingsError where two have one name, or one that is no name of a folder; OutputError where one is there already.
    """
    names = [model.contract.name for model in models]
    for name in names:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"model {name!r}: Triton's folder has its name; it may have letters, digits and . _ - only"
            )
        if names.count(name) > 1:
            raise SettingsError(f"model {name}: is named twice; a repository has one of each name")
        if (folder / name).exists():
            raise OutputError(f"{folder / name}: is there already; remove it, or choose another folder")
    for model, name in zip(models, names, strict=True):
        write_bytes(folder / name / "1" / "model.onnx", model.data)
        write_text(folder / name / "config.pbtxt", configuration(model, tensorrt=tensorrt))
    return [folder / name for name in names]


def configuration(model: Model, *, tensorrt: bool = False) -> str:
    """Triton's `ModelConfig` as text, by which ONNX Runtime runs the model.

    Args: tensorrt: let TensorRT run what it can of the graph, on a GPU, within ONNX Runtime.
    """
    own = model.contract
    batched = isinstance(own.input.shape[0], str)
    lines = [
        f"name: {json.dumps(own.name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH if batched else 0}",
        *_tensor("input", own.input, batched),
        *(line for output in own.outputs for line in _tensor("output", output, batched)),
    ]
    if batched:
        lines.append("dynamic_batching { }")
    if tensorrt:
        lines.append("instance_group { kind: KIND_GPU }")
        lines.append('optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }')
    return "\n".join([*lines, ""])


def _tensor(kind: str, own: Tensor, batched: bool) -> Iterator[str]:
    """Triton names no batch, and no tensor without dimensions: a number for each picture is one of 1, reshaped."""
    dims = [-1 if isinstance(size, str) else size for size in own.shape[batched:]]
    yield f"{kind} {{"
    yield f"  name: {json.dumps(own.name)}"
    yield f"  data_type: {_TYPES[own.dtype]}"
    yield f"  dims: {dims or [1]}"
    if not dims:
        yield "  reshape { shape: [] }"
    yield "}"
