"""An Azure Resource Manager for tests: what it lists, and how it says so."""
