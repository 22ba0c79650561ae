"""Arrays in, values out: masks, measures, scores and metrics. NumPy and OpenCV only; no I/O, no clock, no model."""
