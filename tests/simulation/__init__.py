"""The engine with a thousand workers, in simulated time: `make simulation`."""
