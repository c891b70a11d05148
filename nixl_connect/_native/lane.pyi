# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Lanes: agents with a thread each, for long copies.

Between processes of one host UCX copies memory in one system call, inside NIXL's post, on the
thread that posts and under the agent's lock. A lane makes such a post on a thread and an agent of
its own: two lanes copy two halves at once, and nothing else of the connection waits for them.

A part belongs to its lane from `hand_over` until the lane counts it as finished. The record, which
holds it, stays with its owner, the completion thread.
"""

from typing import Final

from nixl_connect._native.agent import Agent

class Lane:
    """A lane. Made by `Reactor.lane`."""

    agent: Final[Agent]

    def stop(self, abandon: bool) -> None:
        """End the thread, after the reactor. Idempotent.

        Parameters
        ----------
        abandon : bool
            Leave what is in flight as it is: neither the agent nor the memory may ever be freed.
            Waits for a copy that is going on, and no longer.
        """
