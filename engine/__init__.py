"""The deployed half: pictures in, findings out; nothing here sees torch."""
