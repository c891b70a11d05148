"""The command ``nixl-connect demo``: moves data between two processes, and verifies every byte."""
