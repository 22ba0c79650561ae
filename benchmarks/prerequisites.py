"""What `on_gpu.sh` needs, by name, and what is left out without the rest. Exit 1 where something that is needed is absent."""

from __future__ import annotations

import importlib.util
import sys

NEEDED = {  # module: what brings it
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "onnxruntime": "onnxruntime or onnxruntime-gpu",
    "simplejpeg": "simplejpeg",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "typer": "typer",
    "rich": "rich",
    "onnx": "onnx",
    "onnxconverter_common": "onnxconverter-common",
    "onnxscript": "onnxscript",
    "torch": "torch",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
OPTIONAL = {  # and what there is not without it
    "pycuda": ("pycuda", "no test of slots, streams and CUDA graphs, no TensorRT of either kind"),
    "cuda.bindings": ("cuda-bindings", "no test of slots, streams and CUDA graphs, no TensorRT of either kind"),
    "filelock": ("filelock", "no TensorRT of either kind"),
    "tensorrt": ("tensorrt", "no test and no row of tensorrt"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "no test and no row of tensorrt-rtx"),
}


def main() -> int:
    lacking = [package for module, package in NEEDED.items() if not _found(module)]
    for module, (package, what) in OPTIONAL.items():
        if not _found(module):
            print(f"without {package}: {what}")
    if lacking:
        print(f"absent, and needed: {', '.join(lacking)}", file=sys.stderr)
        return 1
    import onnxruntime
    import torch

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("without onnxruntime-gpu: no row of ONNX Runtime's CUDA provider")
    if not torch.cuda.is_available():
        print("without a torch that sees a GPU: no row of torch, no ceilings")
    return 0


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of what it is a part of
        return False


if __name__ == "__main__":
    sys.exit(main())
