"""From a training run to an ONNX file that describes itself. The one place outside training that uses torch."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from numpy.typing import NDArray

from ..engine import contract, files, runners
from ..engine.errors import SettingsError
from ..engine.gate.comparison import Report, verify_outputs
from ..engine.gate.pictures import prepared
from ..engine.gate.verify import reader_of
from ..engine.readers import READERS
from ..engine.readers.difference import FP32
from ..training import train
from ..training.system import Deployed
from ..training.systems import SYSTEMS
from .stamp import stamp_verified

OPSET = 20
_FOLDED = 1 << 16  # values of a constant up to which what is computed of it alone is computed here
_GATE_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """What is to be exported.

    Attributes:
        network: As trained.
        document: Its contract, not yet stamped.
    """

    network: Deployed
    document: contract.Contract


def export(run: Path, out: Path, pictures: list[Path], *, name: str, version: str) -> tuple[contract.Model, Report]:
    """Export a run's best checkpoint, with its calibration in the contract.

    Args:
        run: A folder that `train` made.
        out: The file to write.
        pictures: Real photographs for the gate (32 or more tell most).
        name: The model's, in its contract.
        version: The same.

    Returns:
        The verified file, and the gate's report.

    Raises:
        SettingsError: The run is not complete.
        ModelError: torch and ONNX Runtime differ by more than `difference.FP32`; then `out` stays as it was.
        OutputError: The file cannot be written.
    """
    files.expect(out)
    plan = planned(run, name, version)
    images = prepared(pictures, plan.document.geometry.build())
    proto = to_onnx(plan.network.folded(), plan.document.geometry.size)
    return stamp_verified(proto, plan.document, out, lambda model: verify_export(plan.network, model, images))


def planned(run: Path, name: str, version: str) -> Plan:
    """Network and contract of a calibrated run. Raises SettingsError where the run is not complete."""
    settings, state = train.load_checkpoint(run / "best.pt")
    system = SYSTEMS[settings.kind]
    try:
        calibration = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{run}: not calibrated; run `funduscope calibrate {run}` first") from None
    if missing := sorted({*system.calibrated, "training"} - calibration.keys()):
        raise SettingsError(
            f"{run}: its calibration lacks {', '.join(missing)}; run `funduscope calibrate {run}` again"
        )
    if calibration.get("network") != train.digest(state["network"]):
        raise SettingsError(
            f"{run}: its calibration is not of best.pt as it is now; run `funduscope calibrate {run}` again"
        )
    size, deployment = settings.geometry.size, system.deploy(settings, state, calibration)
    document = READERS[settings.kind].contract(
        format="funduscope/1",
        sha256=contract.ZEROS,
        kind=settings.kind,
        name=name,
        version=version,
        precision="fp32",
        input=contract.Tensor(name="images", dtype="uint8", shape=["batch", size, size, 3]),
        geometry=settings.preparation(size),
        training=contract.TrainingPart(**calibration["training"]),
        terms=contract.TermsPart(**settings.terms.model_dump()),
        **deployment.fields,
    )
    return Plan(deployment.network, document)


def to_onnx(network: Deployed, size: int) -> onnx.ModelProto:
    """The graph: uint8 (batch, size, size, 3) in, float32 out, batch symbolic."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own internals
        program = torch.onnx.export(
            network,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(network.outputs),
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    model = onnxscript.optimizer.optimize(program.model_proto, input_size_limit=_FOLDED)
    del model.metadata_props[:]
    for node in model.graph.node:  # stack traces of the machine that exported
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    return model


def verify_export(network: Deployed, model: contract.Model, images: NDArray[np.uint8]) -> Report:
    """The gate between a network in torch and its exported file, on prepared pictures uint8 (N, S, S, 3)."""

    @torch.inference_mode()
    def reference(batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {n: o.numpy() for n, o in zip(network.outputs, network(torch.from_numpy(batch)), strict=True)}

    with runners.open_runner(model, "onnxruntime", max_batch=_GATE_BATCH) as runner:
        return verify_outputs(reference, runner, images, reader_of(model), FP32, (1, _GATE_BATCH))


def weights_of(model: contract.Model) -> dict[str, torch.Tensor]:
    """The weights in a file that `export` wrote, by the names that the network has for them; those of folded layers as folded."""
    graph = onnx.load_from_string(model.data).graph
    return {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
