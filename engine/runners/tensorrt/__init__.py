"""TensorRT and TensorRT-RTX: engines on disk, and what runs them."""
