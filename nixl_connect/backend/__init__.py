"""What stands between this library and NIXL with UCX: how they are loaded and kept in order.

The library and its version, the agent with its transports' options, the files, ports and shared
memory that UCX opens in a process, what children inherit, and the surroundings that NIXL needs. Of
operations and memory nothing is known here.
"""
