"""ONNX Runtime: on the CPU the embedded default, and on NVIDIA GPUs where `onnxruntime-gpu` takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..contract import Model
from ..errors import BackendError, ModelError
from . import gpu

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRuntime:
    """See `Runner`. The session is made from the verified bytes; weights outside them are never looked for."""

    provider: ClassVar[str] = "CPUExecutionProvider"
    slots = 1

    def __init__(self, model: Model, *, max_batch: int, threads: int | None, device: int = 0) -> None:
        self.max_batch = max_batch
        self.precision: str = model.contract.precision
        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = False  # batches vary in size; costs 3 % of time, saves a large share of memory
        options.add_session_config_entry("session.force_spinning_stop", "1")  # idle, leave the cores to the other model
        options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI, int8 sums overflow otherwise
        options.log_severity_level = 3
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(model.path / "none"))  # below a file there is nothing
        if threads is not None:
            options.intra_op_num_threads = threads
        provider_options = self._configure(options, device)
        try:
            session = onnxruntime.InferenceSession(model.data, options, providers=[(self.provider, provider_options)])
        except Exception as error:  # ONNX Runtime raises classes of its own for each cause
            if self.provider != OnnxRuntime.provider:
                raise BackendError(f"{self.provider} does not run {model.path} here: {error}") from error
            raise ModelError(f"{model.path}: ONNX Runtime refuses it: {error}") from error
        session.disable_fallback()
        if session.get_providers()[0] != self.provider:  # it goes on with the CPU where a provider fails
            raise BackendError(f"ONNX Runtime took {session.get_providers()} where {self.provider} was asked for")
        contract = model.contract
        if [i.name for i in session.get_inputs()] != [contract.input.name]:
            raise ModelError(f"{model.path}: its input is not {contract.input.name}, as its contract says")
        self._outputs = [output.name for output in contract.outputs]
        if {o.name for o in session.get_outputs()} != set(self._outputs):
            raise ModelError(f"{model.path}: its outputs are not {self._outputs}, as its contract says")
        self._input = contract.input.name
        self._session: onnxruntime.InferenceSession | None = session

    def _configure(self, options: Any, device: int) -> dict[str, Any]:  # noqa: ARG002
        """What a provider needs of the session, and its own options. Raises BackendError where it cannot be had here."""
        return {}

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        session = self._session  # which another thread may close
        assert session is not None, "the runner is closed"
        assert 1 <= len(images) <= self.max_batch, f"{len(images)} pictures; the runner takes 1 to {self.max_batch}"
        return dict(zip(self._outputs, session.run(self._outputs, {self._input: images}), strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class OnnxRuntimeCuda(OnnxRuntime):
    """The same on an NVIDIA GPU: every node there, or an error. TF32 is off."""

    provider = "CUDAExecutionProvider"
    own_options: ClassVar[dict[str, Any]] = {"use_tf32": 0}
    slots = 2

    def _configure(self, options: Any, device: int) -> dict[str, Any]:
        gpu.device(device)
        present = onnxruntime.get_available_providers()
        if self.provider not in present:
            swap = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
            raise BackendError(f"this ONNX Runtime has no {self.provider} (it has {', '.join(present)}); take: {swap}")
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return {"device_id": device, **self.own_options}


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """ONNX Runtime's own TensorRT provider. It builds its engine when the model is opened, which may take minutes."""

    provider = "TensorrtExecutionProvider"
    own_options: ClassVar[dict[str, Any]] = {}
