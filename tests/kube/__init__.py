"""The API server of demo and tests (deploy/demo/kube), proved by real clients and kubectl.

A test asks for `cluster` (cluster.py): its address, papers, kubeconfig and kubectl, objects in and
out. The same tests run against kube-apiserver and etcd when KUBEBUILDER_ASSETS names a folder with
them. What only our own can do is reached by `cluster.server` and `cluster.faults`, and is skipped
there. `running` starts more of them.
"""
