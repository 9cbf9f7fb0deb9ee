"""meshfed into a cluster, and out of it."""
