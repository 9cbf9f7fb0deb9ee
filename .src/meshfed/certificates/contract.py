"""The suite every issuer passes, ours and others'."""

from meshfed.federation.certificates.contract import IssuerContract

__all__ = ["IssuerContract"]
