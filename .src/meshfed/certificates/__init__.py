"""The public name of the issuer seam, for packages that bring an issuer of their own."""

from meshfed.federation.certificates.issuer import Issuer, Unissuable

__all__ = ["Issuer", "Unissuable"]
