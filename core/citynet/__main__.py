"""``python -m citynet``: the same as the command ``citynet``."""

from citynet.cli import main

main()
