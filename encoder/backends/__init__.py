"""Runtimes that do the forward, behind one protocol."""
