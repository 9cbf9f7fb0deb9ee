"""The command line: five groups of verbs over the same catalog."""
