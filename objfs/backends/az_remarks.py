"""What a container of Azure's does behind our back: immutability, legal holds, soft delete.

Owns the questions, and what each answer will cost or break.  An account that may not ask learns nothing.
Lifecycle rules belong to the account's management, which a storage key cannot ask.
"""

from __future__ import annotations

from collections.abc import Iterator

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient


def remarks(service: BlobServiceClient, container: str) -> list[str]:
    """Sentences for the person who chose the container; blocks for two requests."""
    return [*_immutable(service, container), *_soft_delete(service)]


def _immutable(service: BlobServiceClient, container: str) -> Iterator[str]:
    try:
        found = service.get_container_client(container).get_container_properties()
    except HttpResponseError:
        return
    kept = "the lease and the header cannot be overwritten, and deleted shards stay; take it off"
    if found.has_immutability_policy:
        yield f"an immutability policy holds for the container: {kept}"
    if found.has_legal_hold:
        yield f"a legal hold lies on the container: {kept}"


def _soft_delete(service: BlobServiceClient) -> Iterator[str]:
    try:
        policy = service.get_service_properties()["delete_retention_policy"]
    except HttpResponseError:
        return
    if policy.enabled:
        kept = f"what objfs deletes or overwrites is kept, and paid for, for {policy.days} days more"
        yield f"soft delete is on: {kept}"
