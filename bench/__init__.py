"""Measures file systems side by side: ``python -m bench.run``."""
