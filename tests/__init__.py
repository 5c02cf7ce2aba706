"""The tests mirror the package; what drives kernels and browsers has a folder of its own."""
