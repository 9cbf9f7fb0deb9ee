"""Sidecars into pods: what becomes of a pod, as pure functions over raw objects."""
