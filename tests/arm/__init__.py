"""The Resource Manager of demo and tests, without sockets or with time passed by hand."""
