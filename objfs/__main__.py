"""``python -m objfs``: the same as the program ``objfs``."""

from objfs.cli.main import main

main()
