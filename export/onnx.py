"""From a training run to an ONNX file that describes itself. The one place outside training that uses torch."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..engine import contract, files, runners
from ..engine.errors import ModelError, SettingsError
from ..engine.gate import comparison as gate
from ..engine.gate import verify
from ..engine.readers.classifier import Classifier, DecisionPart, MapGridPart
from ..engine.readers.difference import FP32
from ..engine.readers.multitask import MultiTask, RulesPart
from ..training import train
from ..training.classifier import config as classifier_config
from ..training.classifier import job as classifier_job
from ..training.classifier import networks as classifier
from ..training.multitask import config as multitask_config
from ..training.multitask import job as multitask_job
from ..training.multitask import networks as multitask
from .stamp import admit

OPSET = 20
_GATE_BATCH = 8
Deployed = multitask.Deployed | classifier.Deployed


@dataclass(frozen=True)
class Plan:
    """What is to be exported: the network as trained, and its contract, not yet stamped."""

    network: Deployed
    document: contract.Contract

    @property
    def outputs(self) -> list[str]:
        """Of the graph, in order."""
        return [output.name for output in self.document.outputs]


def export(
    run: Path, out: Path, pictures: list[Path], *, name: str, version: str
) -> tuple[contract.Model, gate.Report]:
    """Export a run's best checkpoint, with its calibration in the contract.

    Args: run: a folder that `train` made; pictures: real photographs for the gate (32 or more tell most).
    Returns: the verified file, and the gate's report. Raises: SettingsError where the run is not complete; ModelError
    where torch and ONNX Runtime differ by more than `gate.FP32`: then `out` stays as it was; OutputError.
    """
    files.expect(out)
    plan = planned(run, name, version)
    images = verify.pictures(pictures, plan.document.geometry.build())
    proto = to_onnx(folded(plan.network), plan.document.geometry.size, plan.outputs)
    return admit(proto, plan.document, out, lambda model: check(plan.network, plan.outputs, model, images))


def planned(run: Path, name: str, version: str) -> Plan:
    """Network and contract of a calibrated run. Raises SettingsError where the run is not complete."""
    settings, state = train.load_checkpoint(run / "best.pt")
    try:
        calibration = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{run}: not calibrated; run `funduscope calibrate {run}` first") from None
    if calibration["training"]["steps"] != state["step"]:
        raise SettingsError(
            f"{run}: calibrated at step {calibration['training']['steps']}, but best.pt is of step {state['step']}; "
            f"run `funduscope calibrate {run}` again"
        )
    needed = (
        {"rules", "glaucoma_threshold"} if settings.kind == "multi-task" else {"decisions", "point", "disagreement"}
    )
    if missing := sorted(needed - calibration.keys()):
        raise SettingsError(
            f"{run}: its calibration lacks {', '.join(missing)}; run `funduscope calibrate {run}` again"
        )
    common = {
        "format": "funduscope/1",
        "sha256": contract.ZEROS,
        "name": name,
        "version": version,
        "precision": "fp32",
        "input": contract.Tensor(name="images", dtype="uint8", shape=["batch", *[settings.geometry.size] * 2, 3]),
        "training": contract.TrainingPart(**calibration["training"]),
        "terms": contract.TermsPart(**settings.terms.model_dump()),
    }
    if isinstance(settings, multitask_config.Config):
        return _multitask_plan(settings, state, calibration, common)
    return _classifier_plan(settings, state, calibration, common)


def _multitask_plan(
    settings: multitask_config.Config, state: dict[str, Any], calibration: dict[str, Any], common: dict[str, Any]
) -> Plan:
    geometry = settings.geometry
    document = MultiTask(
        kind="multi-task",
        outputs=[_output(n, *[geometry.size] * 2) for n in multitask.MAPS] + [_output("glaucoma")],
        geometry=contract.GeometryPart(
            path="crop-pad-resize-1", size=geometry.size, fov_threshold=geometry.fov_threshold
        ),
        rules=RulesPart(**calibration["rules"]),
        glaucoma_threshold=calibration["glaucoma_threshold"],
        **common,
    )
    network = multitask_job.from_checkpoint(settings, state["network"])
    return Plan(multitask.Deployed(network).eval(), document)


def _classifier_plan(
    settings: classifier_config.Config, state: dict[str, Any], calibration: dict[str, Any], common: dict[str, Any]
) -> Plan:
    geometry = settings.geometry
    decisions = {name: DecisionPart(**values) for name, values in calibration["decisions"].items()}
    network = classifier_job.from_checkpoint(settings, state["network"]).eval()
    temperatures = {name: decisions[name].temperature for name in classifier.OUTPUTS}
    deployed = classifier.Deployed(network, temperatures).eval()
    outputs, grid = [_output(name) for name in classifier.OUTPUTS], None
    if isinstance(network.network, classifier.Pooled):
        with torch.inference_mode():
            blank = torch.zeros(1, geometry.size, geometry.size, 3, dtype=torch.uint8)
            side = int(network.network.maps(network.pixels(blank)).shape[-1])
        outputs += [_output(name, side, side) for name in classifier.MAPS]
        stride, offset = network.network.map_grid()
        grid = MapGridPart(stride_px=stride, offset_px=offset)
    document = Classifier(
        kind="classifier",
        outputs=outputs,
        geometry=contract.GeometryPart(
            path="grey-crop-pad-resize-1", size=geometry.size, fov_threshold=geometry.fov_threshold
        ),
        decisions=decisions,
        point=calibration["point"],
        disagreement=calibration["disagreement"],
        map_grid=grid,
        **common,
    )
    return Plan(deployed, document)


def _output(name: str, *sides: int) -> contract.Tensor:
    return contract.Tensor(name=name, dtype="float32", shape=["batch", *sides])


def folded(deployed: Deployed) -> Deployed:
    """A copy for inference with every BatchNorm that follows a convolution at once folded into it."""
    copied = copy.deepcopy(deployed).eval()
    network = copied.network
    for conv_name, norm_name in network.conv_norm_pairs():
        convolution, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        network.set_submodule(conv_name, fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(norm_name, nn.Identity())
    return copied


def to_onnx(deployed: Deployed, size: int, outputs: Sequence[str]) -> onnx.ModelProto:
    """The graph: uint8 (batch, size, size, 3) in, float32 out, batch symbolic."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own internals
        program = torch.onnx.export(
            deployed,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # stack traces of the machine that exported
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    return model


def check(network: Deployed, outputs: Sequence[str], model: contract.Model, images: NDArray[np.uint8]) -> gate.Report:
    """The gate between a network in torch and its exported file, on prepared pictures uint8 (N, S, S, 3)."""

    @torch.inference_mode()
    def reference(batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {n: o.numpy() for n, o in zip(outputs, network(torch.from_numpy(batch)), strict=True)}

    with runners.open_runner(model, "onnxruntime", max_batch=_GATE_BATCH) as runner:
        return gate.compare(reference, runner, images, verify.reader_of(model), FP32, (1, _GATE_BATCH))


def from_onnx(model: contract.Model) -> multitask.Deployed:
    """The multi-task network in torch again, with the weights of an fp32 file that `export` wrote (BatchNorm stays folded).

    For comparisons where no checkpoint is at hand. Raises: ModelError where the file holds another network.
    """
    graph = onnx.load_from_string(model.data).graph
    weights = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    first = weights.get("network.encoder.features.0.weight")
    if first is None:
        raise ModelError(f"{model.path}: its weights do not have the names that `funduscope export` gives")
    deployed = folded(multitask.Deployed(multitask.MultiTaskUNet(first.shape[0] / 64, 0.0)))
    assert isinstance(deployed, multitask.Deployed)
    known = {name: weights[name] for name in deployed.state_dict() if name in weights}
    missing = deployed.load_state_dict(known, strict=False).missing_keys
    if missing:
        raise ModelError(f"{model.path}: lacks weights of this network: {', '.join(missing[:3])}")
    return deployed.eval()
