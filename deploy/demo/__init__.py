"""The demo's host list, policies and applications: what a user would write."""
