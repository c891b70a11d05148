"""One connector under many threads and loops; every byte compared."""

import asyncio
import random
import threading

import numpy as np
import pytest

import nixl_connect as nc


@pytest.mark.timeout(180)
def test_loops_share_a_connector(make_connector, content):
    one, two = make_connector(), make_connector()
    errors = []

    async def one_transfer(seed):
        data = content(seed, 20_000)
        into = np.zeros(20_000, np.uint8)
        passive = await one.create_readable(nc.Descriptor(data))
        active = await two.begin_read(passive.metadata(), nc.Descriptor(into))
        await asyncio.gather(active.wait_for_completion(20), passive.wait_for_completion(20))
        assert (into == data).all()

    async def many(number):
        await asyncio.gather(*(one_transfer(number * 100 + i) for i in range(50)))

    def work(number):
        try:
            asyncio.run(many(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
        assert not thread.is_alive()
    assert not errors, errors


def test_uvloop(make_connector, content):
    uvloop = pytest.importorskip("uvloop", reason="uvloop has no wheel for this Python")
    one, two = make_connector(), make_connector()

    async def main():
        data = content(0, 1_000_000)
        into = np.zeros_like(data)
        passive = await one.create_readable(nc.Descriptor(data))
        active = await two.begin_read(passive.metadata(), nc.Descriptor(into))
        await passive.wait_for_completion(10)
        await active.wait_for_completion(10)
        assert (into == data).all()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def test_a_loop_closed_while_an_operation_waits(connector):
    operation = connector.create_readable_blocking(nc.Descriptor(np.arange(10)))
    loop = asyncio.new_event_loop()
    task = loop.create_task(operation.wait_for_completion())
    loop.run_until_complete(asyncio.sleep(0.01))
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    # The next loop finds nothing of the last one in its way.
    with pytest.raises(nc.WaitTimeoutError):
        asyncio.run(operation.wait_for_completion(0.01))


def test_a_thousand_operations_pending_at_once(make_connector, content):
    one, two = make_connector(), make_connector()
    data, into = content(0, 1000 * 64), np.zeros(1000 * 64, np.uint8)

    async def main():
        passive = [
            await one.create_readable(nc.Descriptor(data[i * 64 : i * 64 + 64]))
            for i in range(1000)
        ]
        order = list(range(1000))
        random.Random(0).shuffle(order)
        waits = asyncio.gather(*(operation.wait_for_completion(30) for operation in passive))
        active = [
            await two.begin_read(passive[i].metadata(), nc.Descriptor(into[i * 64 : i * 64 + 64]))
            for i in order
        ]
        await asyncio.gather(*(operation.wait_for_completion(30) for operation in active))
        await waits

    asyncio.run(main())
    assert (into == data).all()
    assert one.stats()["notifications"]["unmatched"] == 0
