"""Envoy's view of the mesh: the translation, and the server that speaks it."""

if __name__ == "xds":
    # Found by its folder name from a checkout: make way for xds-protos' package.
    from pkgutil import extend_path

    __path__ = extend_path(__path__, __name__)
