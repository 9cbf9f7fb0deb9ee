"""OSM's bookstore on this machine, each application with a real Envoy of its own."""
