"""objfs: a POSIX directory whose bytes live as sealed, erasure-coded objects in several buckets."""

__version__ = "0.1.0"
