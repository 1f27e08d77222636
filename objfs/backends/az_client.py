"""The client of an account at Azure: its address, its credentials, its connections and their time limits.

Owns what is said to azure-storage-blob once for all requests.  Its own retries are off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient
from requests.adapters import HTTPAdapter

from objfs.backends.az_errors import NoAnswer
from objfs.backends.az_settings import SECRETS, AZSettings
from objfs.backends.sdk import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, THREADS
from objfs.errors import BadSetting, Refused

ONE_REQUEST = 2**28
"""Bytes: what is smaller is put and read in one request, and every object of ours is."""


class _Transport(RequestsTransport):  # type: ignore[misc]  # the SDK hides its type
    """Says that no answer came in a way that the SDK does not take for a reason to ask again."""

    def send(self, request: Any, **arguments: Any) -> Any:
        try:
            return super().send(request, **arguments)
        except (ServiceRequestError, ServiceResponseError) as failure:
            raise NoAnswer(failure) from failure


def connect(settings: AZSettings) -> BlobServiceClient:
    """Makes no request.  Raises Refused where there are no credentials, BadSetting."""
    known = settings.with_environment()
    arguments: dict[str, Any] = {
        "transport": _transport(settings),
        "retry_total": 0,
        "max_single_put_size": ONE_REQUEST,
        "max_single_get_size": ONE_REQUEST,
    }
    try:
        if "connection_string" in known:
            return BlobServiceClient.from_connection_string(known["connection_string"], **arguments)
        return BlobServiceClient(_address(settings, known), _credential(settings, known), **arguments)
    except ValueError as failure:
        raise BadSetting(f"az://: {_without_secrets(str(failure), known)}") from None


def _transport(settings: AZSettings) -> RequestsTransport:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS))
    return _Transport(
        session=session,
        connection_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        connection_verify=settings.ca_bundle or True,
    )


def _address(settings: AZSettings, known: Mapping[str, str]) -> str:
    if settings.endpoint is not None:
        return settings.endpoint
    if "account" not in known:
        raise BadSetting("az:// wants to know the account: add ?account=NAME, or set AZURE_STORAGE_ACCOUNT")
    return f"https://{known['account']}.blob.core.windows.net"


def _credential(
    settings: AZSettings, known: Mapping[str, str]
) -> AzureNamedKeyCredential | AzureSasCredential:
    address = _address(settings, known)
    if "account_key" in known:
        return AzureNamedKeyCredential(known.get("account") or _account_in(address), known["account_key"])
    if "sas_token" in known:
        return AzureSasCredential(known["sas_token"])
    what = "account_key, sas_token or connection_string, or AZURE_STORAGE_KEY and the like"
    raise Refused(f"{address}: no credentials for it; set {what}")


def _account_in(address: str) -> str:
    """Emulators have the account in the path, Azure in the host's name."""
    parts = urlsplit(address)
    return parts.path.strip("/") or (parts.hostname or "").split(".")[0]


def _without_secrets(text: str, known: Mapping[str, str]) -> str:
    for name in SECRETS:
        if name in known:
            text = text.replace(known[name], "...")
    return text
