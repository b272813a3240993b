"""What pyproject.toml cannot say: a wheel has the experiments inside the package, where their names are looked up."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gan_jax*"]), "gan_jax.experiments"],
    package_dir={"gan_jax.experiments": "experiments"},
)
