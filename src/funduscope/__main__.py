"""`python -m funduscope`."""

from .cli import main

main()
