"""The multi-task U-Net: its network, batches, MTL-IO, validation and calibration."""
