"""Long runs: what is used is given back, and the loop stays its owner's."""
