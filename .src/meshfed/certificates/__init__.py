"""The public name of the issuer seam, for packages that bring an issuer of their own."""

from meshfed.federation.certificates.issuer import Issuer, Names, Safe, Unissuable
from meshfed.federation.certificates.keys import Seal, Unsealable

__all__ = ["Issuer", "Names", "Safe", "Seal", "Unissuable", "Unsealable"]
