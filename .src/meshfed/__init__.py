"""One mesh over Kubernetes, Azure VMs and your own hosts, whose state is a SQL database."""
