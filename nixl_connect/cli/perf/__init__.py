"""The command ``nixl-connect perf``: measures a link."""
