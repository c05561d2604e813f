"""Memory: exemplars within a budget of bytes, and the policies that select them."""
