"""Embedded models, each with a card beside it."""
