"""Labelled data sets and figures on them. Nothing that screens imports this room."""
