"""Benchmarks: ours and its peers in turn, ratios of one run only. `make bench` writes the page."""
