"""What runs on a machine that joined: it keeps its Envoy running, and its certificate young."""
