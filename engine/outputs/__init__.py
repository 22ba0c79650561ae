"""Where results go: rows, drawings, patients, the report."""
