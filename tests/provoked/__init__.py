"""Provokes the errors of docs/howto/troubleshooting.md."""
