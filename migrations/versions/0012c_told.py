"""mesh_proxy_sync leaves out what a proxy rejected on a stream that is gone."""

revision = "0012c"
down_revision = "0012b"

VIEWS = "9bf5fb1cb08598ac"  # what they came to: tests/catalog/test_migrations.py


def upgrade() -> None:
    """No table changes; all views are made again around any migration."""


def downgrade() -> None:
    """No table changed."""
