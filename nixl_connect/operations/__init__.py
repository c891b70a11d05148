"""What programs hold of transfers: readable, writable, read, write, and prepared ones."""
