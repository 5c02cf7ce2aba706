"""Tests of what runs the calls."""
