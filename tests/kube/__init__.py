"""A Kubernetes API server for tests: real clients and kubectl talk to it, and it can be broken.

A test asks for `cluster` (cluster.py): its address, papers, kubeconfig and kubectl, objects in and
out. What it accepts, a real one accepts: the same tests run against kube-apiserver and etcd when
KUBEBUILDER_ASSETS names a folder with them. What only this server can do is reached by
`cluster.server` and `cluster.faults`, and is skipped there. `running` starts more of them.

There are no controllers: nobody makes EndpointSlices of Services, ends pods or empties namespaces.
"""
