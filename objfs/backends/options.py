"""What every object is labelled with in its cloud, for bills and rules: ``team=photos,cost=42``.

Owns the syntax.  Knows no cloud.
"""

from __future__ import annotations

from objfs.errors import BadSetting


def read_tags(text: str) -> dict[str, str]:
    """The tags in a text; none in an empty one.  Raises BadSetting."""
    pairs = [item.partition("=") for item in text.split(",")] if text else []
    tags = {name.strip(): value.strip() for name, _equals, value in pairs}
    if len(tags) != len(pairs) or not all(name.strip() and equals for name, equals, _value in pairs):
        raise BadSetting(f"tags={text}: name=value, joined by commas, each name once")
    return tags
