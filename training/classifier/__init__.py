"""The two-disease classifier: its networks, batches, validation, calibration, and the tables that compare its losses."""
