"""Endpoints of Kubernetes clusters."""
