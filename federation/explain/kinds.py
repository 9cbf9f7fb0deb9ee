"""The types of resources, as people and Envoy's admin pages call them."""

from enum import StrEnum


class Kind(StrEnum):
    """Each with the short name that the catalog has for it."""

    CLUSTERS = "clusters"
    LISTENERS = "listeners"
    ROUTES = "routes"
    ENDPOINTS = "endpoints"
    SECRETS = "secrets"

    @property
    def short(self) -> str:
        return {"clusters": "CDS", "listeners": "LDS", "routes": "RDS", "endpoints": "EDS"}.get(
            self.value, "SDS"
        )
