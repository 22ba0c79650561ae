"""The two-disease classifier: its networks, batches, validation, calibration and deployment."""
