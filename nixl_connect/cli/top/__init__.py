"""The command ``nixl-connect top``: watches the connectors of running processes."""
