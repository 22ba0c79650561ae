"""Write a contract into an ONNX file. Every step that rewrites a model stamps it again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import contract
from ..engine.errors import ModelError, require

if TYPE_CHECKING:
    import onnx


def stamp(model: onnx.ModelProto, document: contract.Contract, path: Path) -> contract.Model:
    """Save `model` with `document` and the file's digest in it, in one piece; read it back.

    Args: document: its sha256 is replaced. Returns: the file as read back and verified.
    Raises: ModelError where the model keeps weights outside itself, or does not have the contract's tensors.
    """
    onnx = require("onnx", "export")
    _check(model, document)
    blank = document.model_copy(update={"sha256": contract.ZEROS}).to_json()
    kept = {p.key: p.value for p in model.metadata_props if p.key != contract.METADATA_KEY}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept | {contract.METADATA_KEY: blank})
    data: bytes = model.SerializeToString()
    digest = hashlib.sha256(data).hexdigest()
    head, _, tail = data.partition(blank.encode())
    stamped = head + blank.replace(contract.ZEROS, digest, 1).encode() + tail
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(stamped)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return contract.read(path)


def _check(model: onnx.ModelProto, document: contract.Contract) -> None:
    if any(tensor.data_location == 1 for tensor in model.graph.initializer):  # 1: EXTERNAL
        raise ModelError("the model keeps weights outside its file; only single-file models can be verified")
    for values, tensors in ((model.graph.input, [document.input]), (model.graph.output, document.outputs)):
        found = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        stated = {tensor.name: tensor.shape for tensor in tensors}
        if found != stated:
            raise ModelError(f"the graph has the tensors {found}, the contract states {stated}")
