"""The S3 server in this process."""

from tests.servers.moto import moto_server

__all__ = ["moto_server"]
