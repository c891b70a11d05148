"""Threads that start together."""

import threading


def run_together(count, work):
    """Run `work` in threads that start together; return what it returned. Errors fail the test."""
    gate = threading.Barrier(count)
    results, errors = [], []

    def run():
        try:
            gate.wait(20)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    assert not errors, errors
    return results
