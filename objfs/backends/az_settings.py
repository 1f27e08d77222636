"""Where an account at Azure Blob Storage is, who asks, and what is asked for with each object.

Owns the meaning of the parameters of ``az://`` URLs, of the options beside them, and of the variables that
Azure's own tools read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from azure.storage.blob import StandardBlobTier

from objfs.backends.options import given, read_tags
from objfs.errors import BadSetting

TIERS: Mapping[str, StandardBlobTier] = {
    "Hot": StandardBlobTier.HOT,
    "Cool": StandardBlobTier.COOL,
    "Cold": StandardBlobTier.COLD,
}
"""``Archive`` is not among them: what lies there must be restored, for hours, before it can be read."""

SECRETS = ("account_key", "sas_token", "connection_string")
_ENVIRONMENT = {
    "account": "AZURE_STORAGE_ACCOUNT",
    "account_key": "AZURE_STORAGE_KEY",
    "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
}


@dataclass(frozen=True, slots=True)
class AZSettings:
    """How to reach the account, and what to ask for with each object.

    ``endpoint`` is the account's whole address, where it is not ``https://ACCOUNT.blob.core.windows.net``.
    """

    account: str | None = None
    endpoint: str | None = None
    tier: str | None = None
    encryption_scope: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    connection_string: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> AZSettings:
        """From the URL's parameters and the machine's options.  Raises BadSetting."""
        rest = given(values)
        if rest.get("tier", "Hot") not in TIERS:
            raise BadSetting(
                f"tier={rest['tier']}: one of {', '.join(sorted(TIERS))}; what is archived cannot be read"
            )
        secrets = [name for name in SECRETS if name in rest]
        if len(secrets) > 1:
            raise BadSetting(f"{' and '.join(secrets)} exclude each other")
        rest["tags"] = read_tags(rest.get("tags", ""))
        return cls(**rest)

    def put_arguments(self) -> dict[str, Any]:
        """What goes with each put."""
        wanted = {
            "standard_blob_tier": TIERS[self.tier] if self.tier else None,
            "encryption_scope": self.encryption_scope,
            "tags": dict(self.tags) or None,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def with_environment(self) -> dict[str, str]:
        """What says where the account is and who asks: as set here, and where no secret is, as the
        environment has it."""
        mine = {name: value for name in _ENVIRONMENT if (value := getattr(self, name))}
        found = {
            name: os.environ[variable] for name, variable in _ENVIRONMENT.items() if os.environ.get(variable)
        }
        if any(name in mine for name in SECRETS):
            return {name: value for name, value in found.items() if name not in SECRETS} | mine
        return found | mine
