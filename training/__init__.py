"""Networks, losses, MTL-IO, one readable loop, calibration. Needs the extra `train` (torch)."""
