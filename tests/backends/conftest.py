from __future__ import annotations

from tests.servers.moto import moto_server

__all__ = ["moto_server"]
