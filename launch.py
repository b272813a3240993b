"""`python launch.py COMMAND ...`: the commands of gan_jax, run from a checkout."""

import sys

from gan_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
