"""`python -m koboshi`, as `torchrun` wants it."""

from koboshi.cli import main

main()
