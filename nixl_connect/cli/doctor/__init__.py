"""The command ``nixl-connect doctor``: says what this machine has, and tries a transfer."""
