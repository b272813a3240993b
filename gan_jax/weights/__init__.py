"""Files of weights: read as data alone, without torch, and where the known ones lie and what their hashes are."""
