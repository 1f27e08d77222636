from __future__ import annotations

from tests.servers.azurite import azurite
from tests.servers.gcs import gcs_server
from tests.servers.moto import moto_server
from tests.servers.scripted import scripted

__all__ = ["azurite", "gcs_server", "moto_server", "scripted"]
