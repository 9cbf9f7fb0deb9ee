"""`meshfed bench`: a control plane under load, beside what gRPC alone costs on the same machine."""
