"""What the options of all clouds have in common: which are given, where the server is, and tags.

Owns their syntax; tags are for bills and rules (``team=photos,cost=42``).  Knows no cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from objfs.errors import BadSetting


def given(values: Mapping[str, str]) -> dict[str, Any]:
    """Those that are not empty.  Raises BadSetting where ``endpoint`` is no address."""
    found: dict[str, Any] = {name: value for name, value in values.items() if value}
    if not found.get("endpoint", "https://").startswith(("http://", "https://")):
        raise BadSetting(f"endpoint={found['endpoint']}: begins with http:// or https://")
    return found


def read_tags(text: str) -> dict[str, str]:
    """The tags in a text; none in an empty one.  Raises BadSetting."""
    pairs = [item.partition("=") for item in text.split(",")] if text else []
    tags = {name.strip(): value.strip() for name, _equals, value in pairs}
    if len(tags) != len(pairs) or not all(name.strip() and equals for name, equals, _value in pairs):
        raise BadSetting(f"tags={text}: name=value, joined by commas, each name once")
    return tags
