"""How Google Cloud Storage is reached and what is asked for with each object.

Owns the meaning of the parameters of ``gs://`` URLs and of the options beside them, and the way to
credentials: a file that is named, or what Google calls the application default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import google.auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2.credentials import Credentials as UserCredentials
from google.oauth2.service_account import Credentials as ServiceCredentials

from objfs.backends.options import given, read_tags
from objfs.errors import BadSetting, Refused

SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)

CLASSES = frozenset({"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"})
"""All of them answer reads at once."""

_READERS: Mapping[str, Callable[..., Credentials]] = {
    "service_account": ServiceCredentials.from_service_account_file,
    "authorized_user": UserCredentials.from_authorized_user_file,
}
"""What a file says of itself, and who reads it."""


@dataclass(frozen=True, slots=True)
class GSSettings:
    """How to reach the server, and what to ask for with each object.

    ``billing_project`` pays for requests where the owner of the bucket does not; ``tags`` become an object's
    metadata, because Google's objects have no tags.
    """

    endpoint: str | None = None
    billing_project: str | None = None
    anonymous: bool = False
    storage_class: str | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    credentials_file: str | None = None
    ca_bundle: str | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> GSSettings:
        """From the URL's parameters and the machine's options.  Raises BadSetting."""
        rest = given(values)
        if rest.get("anonymous", "0") not in ("0", "1"):
            raise BadSetting(f"anonymous={rest['anonymous']}: 1 or 0")
        rest["anonymous"] = rest.get("anonymous") == "1"
        if rest["anonymous"] and "credentials_file" in rest:
            raise BadSetting("anonymous=1 and credentials_file exclude each other")
        if rest.get("storage_class", "STANDARD") not in CLASSES:
            raise BadSetting(f"storage_class={rest['storage_class']}: one of {', '.join(sorted(CLASSES))}")
        rest["tags"] = read_tags(rest.get("tags", ""))
        return cls(**rest)

    def credentials(self) -> Credentials:
        """Reads files, and may ask this machine's metadata server.  Raises BadSetting, Refused."""
        if self.anonymous:
            return AnonymousCredentials()
        if self.credentials_file is not None:
            return _from_file(Path(self.credentials_file))
        try:
            found, _project = google.auth.default(scopes=SCOPES)
        except GoogleAuthError as failure:
            what = "set credentials_file, or run gcloud auth application-default login"
            raise Refused(f"no credentials for Google Cloud Storage ({failure}); {what}") from failure
        return found


def _from_file(path: Path) -> Credentials:
    try:
        kind = json.loads(path.read_bytes()).get("type")
        if kind in _READERS:
            return _READERS[kind](str(path), scopes=SCOPES)
    except (OSError, ValueError, AttributeError, GoogleAuthError) as failure:
        raise BadSetting(f"credentials_file={path}: {failure}") from failure
    others = "others by way of GOOGLE_APPLICATION_CREDENTIALS"
    raise BadSetting(f"credentials_file={path}: {kind!r} is no key of a service account or a user; {others}")
