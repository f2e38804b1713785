"""What must hold of a store whatever is done to it, and in whatever order."""
