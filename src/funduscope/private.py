"""Nothing leaves the machine: what libraries are told before any of them is imported."""

from __future__ import annotations

import os

# ONNX Runtime's wheels from 1.32 on else keep a device's identity in the user's cache, and send events where there is a network
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
