"""Checkpoint -> ONNX, stamped with its contract, and the gate after it. Only `onnx.py` needs torch."""
