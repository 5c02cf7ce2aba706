"""Tests of the environment that Binder builds."""
