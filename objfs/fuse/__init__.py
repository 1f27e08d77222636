"""The adapter to the kernel, through pyfuse3."""

from objfs.fuse.operations import Operations
from objfs.fuse.session import Session, fuse_options
from objfs.fuse.translate import FuseSettings

__all__ = ["FuseSettings", "Operations", "Session", "fuse_options"]
