"""`python -m cfgnet` is the command `cfgnet`."""

from cfgnet.cli import main

main()
