"""The native layer over NIXL's C API.

Compiled modules, each with one job; they never import from the Python layer above them.
"""
