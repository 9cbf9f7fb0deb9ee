"""A catalog without a password: Azure's Postgres takes a token of Entra's, good for about an hour.

It is asked for when a connection is made, and what is open stays: a token that ends ends nothing.
https://learn.microsoft.com/azure/postgresql/flexible-server/how-to-configure-sign-in-azure-ad-authentication
"""

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential
    from sqlalchemy.engine import URL

KEY, ENTRA = "auth", "entra"  # of the URL: ?auth=entra
SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
FEDERATED = "AZURE_FEDERATED_TOKEN_FILE"  # what AKS's webhook sets


class Tokenless(Exception):
    """No token was given; one line."""


def refusal(query: Mapping[str, object], password: str | None) -> str:
    """What is wrong with a URL that says who asks, or nothing."""
    if KEY not in query:
        return ""
    if query[KEY] != ENTRA:
        return f"{KEY} is {ENTRA}, or is not there"
    if password or "password" in query:
        return f"{KEY}={ENTRA} is instead of a password"
    if query.get("sslmode") != "verify-full" and not str(query.get("host", "")).startswith("/"):
        return f"{KEY}={ENTRA} needs sslmode=verify-full: whoever answers is told the token"
    return ""


def plain(url: "URL") -> "URL":
    """As the driver takes it."""
    return url.difference_update_query([KEY])


def password(url: "URL") -> dict[str, str]:
    """What a connection needs beside the URL. Blocks while Entra is asked. Raises Tokenless."""
    if KEY not in url.query:
        return {}
    from azure.core.exceptions import AzureError

    try:
        return {"password": _credential().get_token(SCOPE).token}
    except (AzureError, ValueError) as error:
        raise Tokenless(f"no token of Entra's: {str(error).partition(chr(10))[0]}") from error


@cache
def _credential() -> "WorkloadIdentityCredential | ManagedIdentityCredential":
    """The process's identity; it keeps a token until shortly before its end."""
    from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential

    if os.environ.get(FEDERATED):
        # What it would ask of Microsoft is whether the authority that AKS named is one.
        return WorkloadIdentityCredential(disable_instance_discovery=True)
    return ManagedIdentityCredential(client_id=os.environ.get("AZURE_CLIENT_ID"))
