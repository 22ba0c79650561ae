"""The sample photograph: for a first look, and for the self-check of engines. See CREDITS.md."""
