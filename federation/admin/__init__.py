"""What an operator asks a running control plane over HTTP: health, metrics and progress."""
