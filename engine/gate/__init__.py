"""The gate: a candidate beside its reference. What it does not let pass is not served."""
