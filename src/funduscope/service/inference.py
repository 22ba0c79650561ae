"""The open models bare, by the Open Inference Protocol V2: prepared squares in, the network's outputs out; no findings.

Tensors are JSON, or bytes after the JSON (its extension for binary tensor data), little-endian and row by row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ..engine.contract import Contract, Tensor
from ..version import __version__

LENGTH = "Inference-Header-Content-Length"  # the header: bytes of JSON, before those of the tensors
SERVER = {"name": "funduscope", "version": __version__, "extensions": ["binary_tensor_data"]}
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


def described(contract: Contract) -> dict[str, Any]:
    """A model's metadata."""
    return {
        "name": contract.name,
        "versions": [contract.version],
        "platform": "onnx_onnxv1",
        "inputs": [_tensor(contract.input)],
        "outputs": [_tensor(output) for output in contract.outputs],
    }


def _tensor(own: Tensor) -> dict[str, Any]:
    shape = [-1 if isinstance(size, str) else size for size in own.shape]
    return {"name": own.name, "datatype": _DATATYPES[own.dtype], "shape": shape}


class Inference:
    """A request that was understood.

    Args:
        contract: Of the model that is asked.
        body: As it came.
        json_bytes: How many of them are JSON; None: all.

    Attributes:
        images: uint8 (N, S, S, 3) RGB, N >= 1.

    Raises:
        HTTPException: 400: it is none, or not for this model.
    """

    def __init__(self, contract: Contract, body: bytes, json_bytes: str | None) -> None:
        self._contract = contract
        is_length = json_bytes is not None and json_bytes.isdecimal() and len(json_bytes) < 16
        size = len(body) if json_bytes is None else int(json_bytes) if is_length else -1
        _expect(0 <= size <= len(body), f"{LENGTH} is no length within the body")
        try:
            asked = json.loads(body[:size])
            self._id = asked.get("id")
            self._binary = bool(_parameters(asked).get("binary_data_output", False))
            (given,) = asked["inputs"]
            self._wanted = {own["name"]: _parameters(own) for own in asked.get("outputs", ())}
            self.images = self._read(given, body[size:])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise HTTPException(400, f"the request is not understood ({type(error).__name__})") from None
        unknown = self._wanted.keys() - {output.name for output in contract.outputs}
        _expect(not unknown, f"unknown outputs; there are: {', '.join(output.name for output in contract.outputs)}")

    def _read(self, given: Mapping[str, Any], rest: bytes) -> NDArray[np.uint8]:
        own = _tensor(self._contract.input)
        _expect(given["name"] == own["name"], f"the one input is {own['name']}")
        _expect(given["datatype"] == own["datatype"], f"{own['name']} is {own['datatype']}")
        shape: Sequence[int] = given["shape"]
        fits = len(shape) == len(own["shape"]) and list(shape[1:]) == own["shape"][1:]
        _expect(fits and isinstance(shape[0], int) and shape[0] > 0, f"{own['name']} has the shape {own['shape']}")
        size = _parameters(given).get("binary_data_size")
        if size is not None:
            _expect(size == len(rest) == np.prod(shape, dtype=object), "there are not as many bytes as the shape says")
            return np.frombuffer(rest, np.uint8).reshape(shape)
        values = np.asarray(given["data"])
        _expect(not rest and values.dtype.kind in "iu", "data must be whole numbers")
        _expect(values.size == np.prod(shape, dtype=object), "there are not as many numbers as the shape says")
        _expect(bool(((values >= 0) & (values <= 255)).all()), "data must be 0 to 255")
        return values.astype(np.uint8).reshape(shape)

    def answer(self, outputs: Mapping[str, NDArray[np.float32]]) -> Response:
        """The model's outputs, those that were asked for, as they were asked for."""
        told: list[dict[str, Any]] = []
        tail = b""
        for name in self._wanted or outputs:
            values = outputs[name]
            tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
            if self._wanted.get(name, {}).get("binary_data", self._binary):
                data = values.astype("<f4").tobytes()
                tensor["parameters"] = {"binary_data_size": len(data)}
                tail += data
            else:
                _expect(bool(np.isfinite(values).all()), "an output is not finite: ask for it as binary data")
                tensor["data"] = values.ravel().tolist()
            told.append(tensor)
        own = {"model_name": self._contract.name, "model_version": self._contract.version, "outputs": told}
        content = own if self._id is None else own | {"id": self._id}
        if not tail:
            return JSONResponse(content)
        head = json.dumps(content).encode()
        return Response(head + tail, headers={LENGTH: str(len(head))}, media_type="application/octet-stream")


def _parameters(of: Mapping[str, Any]) -> dict[str, Any]:
    return dict(of.get("parameters") or {})


def _expect(holds: bool, told: str) -> None:
    """Raises HTTPException: 400."""
    if not holds:
        raise HTTPException(400, told)
