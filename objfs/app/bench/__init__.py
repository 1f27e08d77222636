"""Measures file systems side by side: the workloads, the floor they are compared with, the table."""
