"""What the mesh's owners want: SMI objects as values, and the sources they are read from."""
