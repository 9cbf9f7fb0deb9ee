"""A Kubernetes API server for demo and tests: real clients and kubectl talk to it.

What it accepts, a real one accepts. It can be broken (faults.py). There are no controllers: nobody
makes EndpointSlices of Services, ends pods or empties namespaces.
"""
