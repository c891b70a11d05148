"""What is promised of an operation, as what no state of the model may be."""

from __future__ import annotations

from life.states import (
    CANCELLED,
    COMPLETE,
    ERRORED,
    FREE,
    GONE,
    RUNS,
    SENT,
    UNSENT,
    Move,
    State,
    touches,
)


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
        if wrong := _wrong_reason(state, move) or _disagreement(state, move):
            return wrong
    if offer.status in (CANCELLED, ERRORED) and not offer.reason:
        return "an offer has ended without a reason"
    arrived = sum(move.arrived for move in state.moves)
    if offer.status == COMPLETE and state.transfers and offer.done >= state.transfers > arrived:
        return "an offer is complete, and bytes are missing"
    if offer.status == COMPLETE and state.transfers == 1 and not arrived:
        return "an offer is complete, and its bytes are not there"
    return _unheard(state)


def _wrong_reason(state: State, move: Move) -> str:
    """Return what a transfer says of its end that is not so."""
    if move.status == COMPLETE and move.said != SENT:
        return "a transfer is complete, and its peer was not told"
    if move.status in (CANCELLED, ERRORED) and not move.reason:
        return "a transfer has ended without a reason"
    if move.reason == "not told" and move.said != UNSENT:
        return "a transfer has failed to tell its peer, and has told it"
    deaf = state.offer.process == GONE or not state.offer.is_open
    if move.reason == "peer lost" and move.linked and not deaf and move.process != GONE:
        return "a peer was taken for lost that is there"
    return ""


def _disagreement(state: State, move: Move) -> str:
    """Return how the two sides of the one transfer of an offer differ, without being told why."""
    offer = state.offer
    if state.transfers != 1 or len(state.moves) != 1 or offer.process == GONE:
        return ""
    left = move.process == GONE or not move.is_open
    if offer.reason == "mover lost" and (not left or "done" in move.words):
        return "a mover was taken for lost that is there, or had said that it was done"
    if move.process == GONE:
        return ""
    announcing = move.claimed and move.status < COMPLETE
    if offer.status == COMPLETE and not (move.status == COMPLETE or announcing):
        return "the offer is complete, and the transfer is not"
    if offer.reason == "peer cancelled" and move.status != CANCELLED:
        return "the offer was told of a cancellation that was none"
    erred = move.status == CANCELLED and (move.erred or not move.linked)
    if offer.reason == "peer failed" and move.status != ERRORED and not erred:
        return "the offer was told of a failure that was none"
    by_itself = offer.reason in ("local", "closed", "timeout") or not move.is_open
    if move.status == COMPLETE and offer.status > COMPLETE and not by_itself:
        return "the transfer is complete, and the offer has not ended so by itself"
    return ""


def _unheard(state: State) -> str:
    """Return that an offer makes nothing of words that were sent and not lost."""
    offer = state.offer
    if offer.process == GONE or not offer.is_open or offer.status >= COMPLETE:
        return ""
    said = [move for move in state.moves if move.said == SENT and not move.words and not move.lost]
    if state.transfers == 1 and said:
        return "an offer was told of the end of its transfer, and goes on"
    if state.transfers != 1 and offer.done + offer.failed < len(said):
        return "an offer was told of the end of transfers, and has not counted them"
    return ""
