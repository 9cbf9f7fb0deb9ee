"""Azure: virtual machines and scale sets as endpoints, without an agent in them."""
