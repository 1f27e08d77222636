"""How an S3 server is reached and what is asked for with each object.

Owns the meaning of the parameters of ``s3://`` URLs and of the options beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

from botocore.config import Config

from objfs.backends.options import given, read_tags
from objfs.backends.sdk import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, THREADS
from objfs.errors import BadSetting

ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects must be restored, for hours, before they can be read."""

_ENCRYPTION = frozenset({"AES256", "aws:kms", "aws:kms:dsse"})
_YES_NO: Mapping[str, bool] = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach the server, and what to ask for with each object.

    ``checksums`` is ``when_required`` by default: objects authenticate themselves, and several
    servers refuse or break botocore's newer trailing checksums.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    storage_class: str | None = None
    sse: str | None = None
    sse_kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Literal["when_required", "when_supported"] = "when_required"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> S3Settings:
        """From the URL's parameters and the machine's options.  Raises BadSetting."""
        rest = given(values)
        if "path_style" in rest:
            rest["path_style"] = _yes_no("path_style", rest["path_style"])
        if rest.get("checksums", "when_required") not in ("when_required", "when_supported"):
            raise BadSetting(f"checksums={rest['checksums']}: when_required or when_supported")
        if rest.get("storage_class") in ARCHIVE_CLASSES:
            raise BadSetting(f"storage_class={rest['storage_class']}: what lies there cannot be read at once")
        if rest.get("sse", "AES256") not in _ENCRYPTION:
            raise BadSetting(f"sse={rest['sse']}: one of {', '.join(sorted(_ENCRYPTION))}")
        rest["tags"] = read_tags(rest.get("tags", ""))
        if ("access_key" in rest) != ("secret_key" in rest):
            raise BadSetting("access_key and secret_key go together")
        return cls(**rest)

    def put_arguments(self) -> dict[str, str]:
        """What goes with each put."""
        wanted = {
            "StorageClass": self.storage_class,
            "ServerSideEncryption": self.sse,
            "SSEKMSKeyId": self.sse_kms_key,
            "Tagging": urlencode(self.tags) or None,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def client_config(self) -> Config:
        """botocore's view of these settings."""
        path_style = self.endpoint is not None if self.path_style is None else self.path_style
        style: Literal["path", "auto"] = "path" if path_style else "auto"
        return Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=THREADS,
            request_checksum_calculation=self.checksums,
            response_checksum_validation=self.checksums,
            s3={"addressing_style": style},
        )


def _yes_no(name: str, value: str) -> bool:
    try:
        return _YES_NO[value.lower()]
    except KeyError:
        raise BadSetting(f"{name}={value}: 1 or 0") from None
