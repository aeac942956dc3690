"""Measurements, one JSON line each; see README.md. Not part of the distribution."""
