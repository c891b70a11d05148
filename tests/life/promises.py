"""What is promised of an operation, as what no state of the model may be."""

from __future__ import annotations

from life.states import CANCELLED, COMPLETE, ERRORED, FREE, GONE, RUNS, Move, State, touches


def broken(state: State) -> str:
    """Return which promise a state breaks, or an empty string."""
    offer = state.offer
    for move in state.moves:
        if touches(move) and offer.process == RUNS and offer.memory == FREE:
            return "the offer's memory is free, and a request may touch it"
        if touches(move) and move.process != GONE and move.memory == FREE:
            return "the mover's memory is free, and its request may touch it"
        if move.status == COMPLETE and not move.arrived:
            return "a transfer is complete, and its bytes are not there"
        if move.status in (CANCELLED, ERRORED) and not move.reason:
            return "a transfer has ended without a reason"
        if wrong := _disagreement(state, move):
            return wrong
    if offer.status in (CANCELLED, ERRORED) and not offer.reason:
        return "an offer has ended without a reason"
    arrived = sum(move.arrived for move in state.moves)
    if offer.status == COMPLETE and state.transfers and offer.done >= state.transfers > arrived:
        return "an offer is complete, and bytes are missing"
    if offer.status == COMPLETE and state.transfers == 1 and not arrived:
        return "an offer is complete, and its bytes are not there"
    return ""


def _disagreement(state: State, move: Move) -> str:
    """Return how the two sides of the one transfer of an offer differ, without being told why."""
    offer = state.offer
    if state.transfers != 1 or offer.process == GONE:
        return ""
    if offer.reason == "mover lost" and (move.process != GONE or "done" in move.words):
        return "a mover was taken for lost that is there, or had said that it was done"
    if move.process == GONE:
        return ""
    ended = offer.status >= COMPLETE
    if offer.status == COMPLETE and not (move.status == COMPLETE or move.claimed):
        return "the offer is complete, and the transfer is not"
    if offer.reason == "peer cancelled" and move.status != CANCELLED:
        return "the offer was told of a cancellation that was none"
    if offer.reason == "peer failed" and move.status not in (CANCELLED, ERRORED):
        return "the offer was told of a failure that was none"
    by_itself = offer.reason in ("local", "closed", "timeout")
    if move.status == COMPLETE and ended and offer.status != COMPLETE and not by_itself:
        return "the transfer is complete, and the offer has not ended so by itself"
    return ""
