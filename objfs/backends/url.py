"""Bucket URLs: text to parts and back.

Owns the syntax.  Knows neither what a scheme's parameters mean nor which schemes there are.
Promises that the text of a BucketURL holds no secret: credentials in a URL are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from objfs.errors import MalformedURL

SECRETS = frozenset(
    {
        "access_key",
        "secret_key",
        "session_token",
        "account_key",
        "sas_token",
        "connection_string",
        "password",
        "key",
        "token",
        "sig",
    }
)
"""Names that people try in a query; these belong into the options of this machine."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")


@dataclass(frozen=True, slots=True)
class BucketURL:
    """One place for objects.

    ``place`` is a bucket's name, or for ``file`` the absolute path; ``prefix`` goes before each
    key (no slash at either end); ``query`` are the scheme's own parameters.
    """

    scheme: str
    place: str
    prefix: str = ""
    query: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The canonical text, which parses to the same again."""
        query = f"?{urlencode(sorted(self.query.items()), safe=':/')}" if self.query else ""
        path = f"/{quote(self.prefix)}" if self.prefix else ""
        return f"{self.scheme}://{quote(self.place)}{path}{query}"


def scheme_of(text: str) -> str:
    """What stands before ``://``; where nothing does, ``file``."""
    match = _SCHEME.match(text)
    return match[1].lower() if match is not None and match[2] else "file"


def parse_text(text: str) -> BucketURL:
    """Reads ``scheme://place/prefix?name=value`` or a plain path; MalformedURL says what is wrong."""
    if not text or "\0" in text or text != text.strip() or not _is_unicode(text):
        raise MalformedURL(f"{text!r}: a bucket is a URL such as s3://bucket/prefix, or a path")
    match = _SCHEME.match(text)
    if match is None:
        return _file_url(text)
    if match[2] is None:
        raise MalformedURL(f"{match[1]}: write {match[1]}://... for a URL, or ./{match[1]}:... for a path")
    if match[1].lower() == "file":
        _refuse_query(text)
        path = re.sub("^localhost/", "/", text[match.end() :])
        if path and not path.startswith("/"):
            raise MalformedURL(f"{text}: no other machine is asked; a directory is file:///dir or /dir")
        return _file_url(unquote(path), text)
    return _remote_url(text)


def _file_url(path: str, text: str = "") -> BucketURL:
    if not path:
        raise MalformedURL(f"{text}: the path is missing; write file:///absolute/path")
    # As it is named and not as it resolves: a symlink that is moved to a new disk stays the bucket.
    return BucketURL("file", str(Path.cwd() / path))


def _refuse_query(text: str) -> None:
    for mark, name in (("?", "parameters"), ("#", "a fragment")):
        if mark in text:
            raise MalformedURL(f"{text}: file:// takes no {name}; a {mark} in a name is %{ord(mark):02X}")


def _is_unicode(text: str) -> bool:
    """False for arguments whose bytes are no UTF-8: such a place could not be written down again."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _remote_url(text: str) -> BucketURL:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise MalformedURL(f"{text}: {error}") from None
    if "@" in parts.netloc:
        raise MalformedURL("credentials do not belong into a bucket URL: they are options of this machine")
    query = _query(parts.query)
    if not parts.netloc:
        raise MalformedURL(f"{text}: the bucket's name is missing")
    if parts.fragment:
        raise MalformedURL(f"{text}: a bucket URL has no fragment (#{parts.fragment})")
    prefix = _prefix(text, unquote(parts.path).strip("/"))
    return BucketURL(parts.scheme, unquote(parts.netloc), prefix, query)


def _prefix(text: str, prefix: str) -> str:
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise MalformedURL(f"{text}: the prefix has an empty part, '.' or '..'")
    if len(prefix.encode()) > 700:
        raise MalformedURL("the prefix is over 700 bytes")
    return prefix


def _query(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise MalformedURL("after the '?' a bucket URL has name=value, joined by '&'") from None
    for name, value in pairs:
        if name in SECRETS:
            raise MalformedURL(f"{name} does not belong into a bucket URL: it is an option of this machine")
        if "://" in value and ("@" in value or "?" in value):
            raise MalformedURL(f"{name} holds an address with credentials, which are options of this machine")
    if len(dict(pairs)) != len(pairs):
        raise MalformedURL("a parameter is given twice in the bucket URL")
    return dict(pairs)
