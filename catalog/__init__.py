"""What is known: the values, the view of one proxy, and the store."""
