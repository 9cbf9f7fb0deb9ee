"""`meshfed migrate`: bring the catalog's tables up to this version."""

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import say, write


def migrate(catalog: CatalogUrl = None, config: Config = None) -> None:
    """Make the catalog, or bring it up to this version; `serve` does so by itself.

    Example: meshfed migrate --catalog sqlite:///meshfed.db
    """
    from meshfed.catalog.schema import migrate as upgrade
    from meshfed.federation.cli.source import catalog_url, reachable

    url = catalog_url(catalog, config)
    with reachable():
        applied = upgrade(url)
    write("".join(f"{name}\n" for name in applied))
    if not applied:
        say("nothing to do: the catalog is up to date")
