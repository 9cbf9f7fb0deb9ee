"""An Azure Resource Manager for demo and tests: what it lists, and how it says so."""
