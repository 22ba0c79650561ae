"""From a training run to an ONNX file that describes itself. The one place outside training that uses torch."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..engine import contract, photo, preprocess, runners
from ..engine.errors import ModelError, PhotoError, SettingsError
from ..training import config as training_config
from ..training import train
from ..training.networks import MAPS, OUTPUTS, Deployed, MultiTaskUNet
from . import gate
from .stamp import stamp

OPSET = 20
_GATE_BATCH = 8


def export(
    run: Path, out: Path, pictures: list[Path], *, name: str, version: str
) -> tuple[contract.Model, gate.Report]:
    """Export a run's best checkpoint, with its calibration in the contract.

    Args: run: a folder that `train` made; pictures: real photographs for the gate (32 or more tell most).
    Returns: the verified file, and the gate's report. Raises: SettingsError where the run is not complete; ModelError
    where torch and ONNX Runtime differ by more than `gate.FP32`: then `out` stays as it was.
    """
    settings, state = train.load_checkpoint(run / "best.pt")
    try:
        calibration = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{run}: not calibrated; run `funduscope calibrate {run}` first") from None
    network = MultiTaskUNet(settings.network.width, settings.network.dropout)
    network.load_state_dict(state["network"])
    document = _contract(settings, calibration, name, version)
    images = prepared(pictures, document.geometry.build())
    out.parent.mkdir(parents=True, exist_ok=True)
    candidate = out.with_name(out.name + ".unchecked")
    try:
        model = stamp(to_onnx(Deployed(folded(network)).eval(), settings.geometry.size), document, candidate)
        report = check(Deployed(network).eval(), model, images)
        if not report.passes(gate.FP32):
            raise ModelError(f"{out}: refused: it differs from torch\n  " + "\n  ".join(report.lines(gate.FP32)))
        candidate.replace(out)
    finally:
        candidate.unlink(missing_ok=True)
    return replace(model, path=out), report


def folded(network: MultiTaskUNet) -> MultiTaskUNet:
    """A copy for inference with every BatchNorm folded into the convolution before it."""
    copied = copy.deepcopy(network).eval()
    encoder = copied.encoder
    for k, name in enumerate(encoder.features):
        encoder.features[name] = _fused(encoder.features[name], encoder.norms[k])
        encoder.norms[k] = nn.Identity()
    for level in copied.decoder:
        parts = level.convolutions
        assert isinstance(parts, nn.Sequential)
        for k in (0, 3):
            parts[k], parts[k + 1] = _fused(parts[k], parts[k + 1]), nn.Identity()
    return copied


def _fused(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def to_onnx(deployed: Deployed, size: int) -> onnx.ModelProto:
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
            output_names=list(OUTPUTS),
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


def check(network: Deployed, model: contract.Model, images: NDArray[np.uint8]) -> gate.Report:
    """The gate between a network in torch and its exported file, on prepared pictures uint8 (N, S, S, 3)."""

    @torch.inference_mode()
    def reference(batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {n: o.numpy() for n, o in zip(OUTPUTS, network(torch.from_numpy(batch)), strict=True)}

    document = model.contract
    _, runner = runners.open_runner(model, "onnxruntime", max_batch=_GATE_BATCH)
    with runner:
        return gate.compare(
            reference, runner, images, document.rules.build(), document.glaucoma_threshold, gate.FP32, _GATE_BATCH
        )


def prepared(pictures: list[Path], geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """The pictures as the engine prepares them; those that cannot be read are left out. Raises SettingsError for none."""
    images: list[NDArray[np.uint8]] = []
    for path in pictures:
        try:
            images.append(preprocess.prepare(photo.read(path), geometry).image)
        except PhotoError:
            continue
    if not images:
        raise SettingsError("the gate needs at least one readable photograph; name some with --data")
    return np.stack(images)


def _contract(
    settings: training_config.Config, calibration: dict[str, Any], name: str, version: str
) -> contract.Contract:
    size = settings.geometry.size
    maps = [contract.Tensor(name=n, dtype="float32", shape=["batch", size, size]) for n in MAPS]
    return contract.Contract(
        format="funduscope/1",
        sha256=contract.ZEROS,
        kind="multi-task",
        name=name,
        version=version,
        precision="fp32",
        input=contract.Tensor(name="images", dtype="uint8", shape=["batch", size, size, 3]),
        outputs=[*maps, contract.Tensor(name="glaucoma", dtype="float32", shape=["batch"])],
        geometry=contract.GeometryPart(
            path="crop-pad-resize-1", size=size, fov_threshold=settings.geometry.fov_threshold
        ),
        rules=contract.RulesPart(**calibration["rules"]),
        glaucoma_threshold=calibration["glaucoma_threshold"],
        training=contract.TrainingPart(**calibration["training"]),
        terms=contract.TermsPart(**settings.terms.model_dump()),
    )


def from_onnx(model: contract.Model) -> Deployed:
    """The network in torch again, with the weights of an fp32 file that `export` wrote (BatchNorm stays folded).

    For comparisons where no checkpoint is at hand. Raises: ModelError where the file holds another network.
    """
    graph = onnx.load_from_string(model.data).graph
    weights = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    first = weights.get("network.encoder.features.0.weight")
    if first is None:
        raise ModelError(f"{model.path}: its weights do not have the names that `funduscope export` gives")
    deployed = Deployed(folded(MultiTaskUNet(first.shape[0] / 64, 0.0)))
    known = {name: weights[name] for name in deployed.state_dict() if name in weights}
    missing = deployed.load_state_dict(known, strict=False).missing_keys
    if missing:
        raise ModelError(f"{model.path}: lacks weights of this network: {', '.join(missing[:3])}")
    return deployed.eval()
