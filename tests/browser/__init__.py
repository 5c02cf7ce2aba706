"""Tests in a real JupyterLab with a real Chromium: see `conftest.py` for the fixtures."""
