"""Measures objfs on this machine: ``python -m bench.run``."""
