"""Labelled data sets and figures on them, for those who make and judge models. Nothing else in the engine imports this room."""
