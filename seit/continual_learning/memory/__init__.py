"""Memory: exemplars within a budget of bytes, and the policies that choose them."""
