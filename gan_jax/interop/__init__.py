"""Weights of other programs into a run's folder, and a run's weights out of it."""
