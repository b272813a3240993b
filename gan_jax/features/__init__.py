"""Fixed networks that turn images into features: modules, weights, and what is done to images before them."""
