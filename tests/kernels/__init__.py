"""Tests in real kernels of several ipykernel versions: see `conftest.py` for the fixtures."""
