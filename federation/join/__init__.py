"""How a machine becomes a workload: it proves who it is, and is given a certificate."""
