"""Write a contract into an ONNX file. Every step that rewrites a model stamps it again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import contract, models
from ..engine.errors import ModelError, require
from ..engine.files import write_bytes
from ..engine.gate.comparison import Report

if TYPE_CHECKING:
    import onnx

_DTYPES = {1: "float32", 2: "uint8"}  # onnx.TensorProto.FLOAT, UINT8


def stamp(model: onnx.ModelProto, document: contract.Contract, path: Path) -> contract.Model:
    """Save `model` with `document` and the file's digest in it, in one piece; read it back.

    Args: document: its sha256 is replaced. Returns: the file as read back and verified.
    Raises: OutputError; ModelError where the model keeps weights outside itself, or lacks the contract's tensors.
    """
    onnx = require("onnx", "export")
    _require_tensors(model, document)
    blank = document.model_copy(update={"sha256": contract.ZEROS}).to_json()
    stamped = type(model)()
    stamped.CopyFrom(model)
    kept = {p.key: p.value for p in stamped.metadata_props if p.key != contract.METADATA_KEY}
    del stamped.metadata_props[:]
    onnx.helper.set_model_props(stamped, kept | {contract.METADATA_KEY: blank})
    head, _, tail = stamped.SerializeToString().partition(blank.encode())
    digest = hashlib.sha256(head + blank.encode() + tail).hexdigest()
    part = path.with_name(path.name + ".part")
    try:
        write_bytes(part, head + blank.replace(contract.ZEROS, digest, 1).encode() + tail)
        models.load(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return models.load(path)


def stamp_verified(
    model: onnx.ModelProto, document: contract.Contract, path: Path, verify: Callable[[contract.Model], Report]
) -> tuple[contract.Model, Report]:
    """Stamp, and keep the file only where the gate lets it pass: until then `path` stays as it was.

    Raises: ModelError with the gate's report where it does not.
    """
    candidate = path.with_name(path.name + ".unverified")
    try:
        stamped = stamp(model, document, candidate)
        report = verify(stamped)
        if not report.passes():
            raise ModelError(f"{path}: refused: it differs from its reference\n  " + "\n  ".join(report.lines()))
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)
    return replace(stamped, path=path), report


def _require_tensors(model: onnx.ModelProto, document: contract.Contract) -> None:
    onnx = require("onnx", "export")
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in tensors):
        raise ModelError("the model keeps weights outside its file; only single-file models can be verified")
    for values, stated in ((model.graph.input, [document.input]), (model.graph.output, document.outputs)):
        found = [_described(value) for value in values]
        if sorted(found, key=str) != sorted((t.model_dump() for t in stated), key=str):
            raise ModelError(
                f"the graph has the tensors {found}, the contract states {[t.model_dump() for t in stated]}"
            )


def _described(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    dtype = _DTYPES.get(kind.elem_type, f"type {kind.elem_type}")
    return {"name": value.name, "dtype": dtype, "shape": [d.dim_param or d.dim_value for d in kind.shape.dim]}
