"""A trained network as small files that travel: convolutions in fp16, norms in fp32, in parts of bounded size.

python -m funduscope.training.sliced.weights pack RUN FOLDER     RUN/best.pt -> FOLDER/weights.fp16.00, .01, ...
python -m funduscope.training.sliced.weights unpack FOLDER RUN   and back, so that RUN can be calibrated and exported
python -m funduscope.training.sliced.weights write RUN FILE      RUN/best.pt -> FILE.safetensors, from which another run can start
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from .. import train

PART_BYTES = 15_000_000
_NAME = "weights.fp16"
_PARTS = f"{_NAME}.[0-9][0-9]"


def pack(run: Path, folder: Path) -> list[Path]:
    """Write `run`'s best checkpoint to `folder` in parts. Returns: the parts, in order."""
    _, state = train.load_checkpoint(run / "best.pt")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_PARTS):
        old.unlink()
    whole = folder / f"{_NAME}.whole"
    train.save({**state, "network": _halved(state["network"])}, whole)
    data = whole.read_bytes()
    whole.unlink()
    parts = []
    for k, start in enumerate(range(0, len(data), PART_BYTES)):
        parts.append(folder / f"{_NAME}.{k:02d}")
        parts[-1].write_bytes(data[start : start + PART_BYTES])
    return parts


def unpack(folder: Path, run: Path) -> Path:
    """Put the parts in `folder` together as `run`/best.pt, in fp32. Returns: its path. Raises SettingsError if damaged."""
    run.mkdir(parents=True, exist_ok=True)
    joined = run / f"{_NAME}.whole"
    joined.write_bytes(b"".join(part.read_bytes() for part in sorted(folder.glob(_PARTS))))
    try:
        _, state = train.load_checkpoint(joined)
    finally:
        joined.unlink()
    train.save({**state, "network": {n: _single(t) for n, t in state["network"].items()}}, run / "best.pt")
    return run / "best.pt"


def write(run: Path, file: Path) -> Path:
    """Write the network of `run`'s best checkpoint alone, as `network.start` of a configuration takes it. Returns: its path."""
    from safetensors.torch import save_file

    _, state = train.load_checkpoint(run / "best.pt")
    save_file({name: tensor.contiguous() for name, tensor in _halved(state["network"]).items()}, file)
    return file


def _halved(network: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.half() if tensor.dim() == 4 else tensor for name, tensor in network.items()}


def _single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


if __name__ == "__main__":
    action, source, target = sys.argv[1:]
    sys.stdout.write(f"{ {'pack': pack, 'unpack': unpack, 'write': write}[action](Path(source), Path(target)) }\n")
