"""Layers: pure functions and small Linen modules; plain arrays in, plain arrays out."""
