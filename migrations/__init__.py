"""The catalog's schema, one change a file."""
