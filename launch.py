"""`python launch.py COMMAND ...`: the commands of gan_jax, run from a checkout."""

from gan_jax.cli import command

if __name__ == "__main__":
    command()
