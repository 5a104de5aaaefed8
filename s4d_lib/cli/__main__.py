"""words → calls     `python -m s4d_lib.cli`: the `s4d` command where no script is installed."""

from s4d_lib.cli.app import main

main()
