"""A Kubernetes API server for tests: real clients and kubectl talk to it, and it can be broken.

What it accepts, a real one accepts: the same tests run against kube-apiserver and etcd when
KUBEBUILDER_ASSETS names a folder with them.
"""
