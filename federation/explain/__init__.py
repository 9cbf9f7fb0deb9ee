"""Why things are as they are: each question a pure function from the mesh to steps."""
