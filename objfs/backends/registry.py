"""From a URL to a bucket: one row per scheme.

Owns the table.  A scheme's module, and with it the SDK of its cloud, is imported when the first
bucket of that scheme is opened.  A new backend is a module with ``open_url`` and a row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from objfs.backends.base import Bucket, Capabilities
from objfs.backends.url import BucketURL, parse_text, scheme_of
from objfs.errors import BadSetting, BucketError, MalformedURL

__all__ = ["SCHEMES", "BucketURL", "Scheme", "capabilities", "open_bucket", "parse_url"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """``module`` implements it; ``query`` are the parameters its URLs may have, ``options`` those
    of this machine (credentials among them), which may also override the query; ``extra`` is what
    brings the cloud's SDK where objfs itself does not."""

    module: str
    capabilities: Capabilities
    query: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    extra: str | None = None


class _Opener(Protocol):
    def open_url(self, url: BucketURL, options: Mapping[str, str]) -> Bucket: ...


SCHEMES: Mapping[str, Scheme] = {
    "file": Scheme("objfs.backends.file", Capabilities(True, True, "always")),
    "mem": Scheme("objfs.backends.memory", Capabilities(False, True, "always")),
    "s3": Scheme(
        "objfs.backends.s3",
        Capabilities(True, False, "depends on the server"),
        query=frozenset(
            {
                "endpoint",
                "region",
                "profile",
                "path_style",
                "storage_class",
                "sse",
                "sse_kms_key",
                "checksums",
                "tags",
            }
        ),
        options=frozenset(["access_key", "secret_key", "session_token", "ca_bundle"]),
    ),
    "gs": Scheme(
        "objfs.backends.gs",
        Capabilities(True, False, "depends on the server"),
        query=frozenset(["endpoint", "billing_project", "anonymous", "storage_class", "kms_key", "tags"]),
        options=frozenset(["credentials_file", "ca_bundle"]),
        extra="gs",
    ),
    "az": Scheme(
        "objfs.backends.az",
        Capabilities(True, False, "depends on the server"),
        query=frozenset(["account", "endpoint", "tier", "encryption_scope", "tags"]),
        options=frozenset(["account_key", "sas_token", "connection_string", "ca_bundle"]),
        extra="az",
    ),
}


def parse_url(text: str) -> BucketURL:
    """Reads a bucket URL or a plain path; MalformedURL says which part is wrong."""
    scheme = _scheme(scheme_of(text))  # first: what may be wrong with the rest depends on it
    url = parse_text(text)
    unknown = sorted(url.query.keys() - scheme.query)
    if unknown:
        known = ", ".join(sorted(scheme.query)) or "none"
        raise MalformedURL(f"{url.scheme}:// has no parameter {unknown[0]!r}; known: {known}")
    return url


def open_bucket(url: str, options: Mapping[str, str]) -> Bucket:
    """The bucket behind a URL, without wrappers and without a request.

    ``options`` belong to this machine; they override the URL's parameters.  Raises MalformedURL,
    BadSetting for an unknown or impossible option, BucketError naming the extra to install where the
    library of a cloud is missing.
    """
    parsed = parse_url(url)
    scheme = _scheme(parsed.scheme)
    unknown = sorted(options.keys() - scheme.query - scheme.options)
    if unknown:
        known = ", ".join(sorted(scheme.query | scheme.options)) or "none"
        raise BadSetting(f"{parsed.scheme}:// buckets have no option {unknown[0]!r}; known: {known}")
    return _opener(parsed.scheme, scheme).open_url(parsed, options)


def capabilities(url: str) -> Capabilities:
    """What is known of this kind of bucket beforehand.  MalformedURL."""
    return _scheme(parse_text(url).scheme).capabilities


def _opener(name: str, scheme: Scheme) -> _Opener:
    try:
        return cast("_Opener", importlib.import_module(scheme.module))
    except ModuleNotFoundError as missing:
        if scheme.extra is None:
            raise
        how = f"pip install 'objfs[{scheme.extra}]'"
        what = f"{name}:// needs a library that is not installed ({missing.name}): {how}"
        raise BucketError(what) from missing


def _scheme(name: str) -> Scheme:
    try:
        return SCHEMES[name]
    except KeyError:
        known = ", ".join(f"{each}://" for each in sorted(SCHEMES))
        raise MalformedURL(f"{name}:// is not a kind of bucket that objfs knows; known: {known}") from None
