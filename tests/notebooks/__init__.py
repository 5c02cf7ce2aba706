"""Tests of the notebooks that users read first, beside what nbval compares."""
