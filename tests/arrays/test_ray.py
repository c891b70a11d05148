"""Arrays between Ray actors, on a cluster of this machine. Run by tests/whole/test_ray.py."""

import gc
import os
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray")
sys.path.append(str(Path(__file__).parents[1] / "named"))

from sampled import flat, sampled, told  # noqa: E402, after the path

import nixl_connect as nc  # noqa: E402
import nixl_connect.ray as transport  # noqa: E402

NAMES = transport.register()
DEADLINE = 60
pytestmark = [
    pytest.mark.timeout(120),
    # An array that is passed back to who made it.
    pytest.mark.filterwarnings("ignore:RDT ObjectRef:UserWarning"),
    # Ray's own thread ends where it tells an actor that is dead to abort.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    path = os.pathsep.join([str(Path(sampled.__code__.co_filename).parent), *sys.path])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@ray.remote(num_cpus=0.1, enable_tensor_transport=True)
class Actor:
    """Makes and takes arrays."""

    def __init__(self):
        self.mine = np.arange(1000)

    @ray.method(tensor_transport="NIXL_CONNECT")
    def sample(self, seed):
        return {"nested": [sampled(seed)], "beside": "text"}

    @ray.method(tensor_transport="NIXL_CONNECT")
    def whole(self, size):
        return np.full(size, 7, np.uint8)

    @ray.method(tensor_transport="NIXL_CONNECT")
    def lines(self):
        return [np.arange(10.0), np.asfortranarray(np.ones((2, 3), np.float32))]

    @ray.method(tensor_transport="NIXL_CONNECT")
    def own(self):
        return self.mine

    @ray.method(tensor_transport="NIXL_CONNECT")
    def bad(self, kind):
        return {"objects": np.array([None]), "sparse": np.arange(10)[::2]}[kind]

    @ray.method(tensor_transport="NIXL_CONNECT")
    def nothing(self):
        return "no array"

    @ray.method(tensor_transport="NIXL_CONNECT_JAX")
    def of_jax(self):
        import jax.numpy as jnp

        return {"x": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)}

    def kind_of_jax(self, got):
        return type(got["x"]).__name__, str(got["x"].dtype), got["x"].tolist()

    def tell(self, got):
        return told(got["nested"][0]), got["beside"]

    def total(self, got):
        return int(got.sum())

    def held(self):
        return transport._process.connector().stats()["operations"]["waiting"]

    def has_torch(self):
        return "torch" in sys.modules

    def pid(self):
        return os.getpid()

    def hesitate(self):
        """Have Ray take its time to make what it keeps of arrays in this process."""
        from ray.experimental import RDTManager

        make = RDTManager.__init__

        def slowly(manager):
            time.sleep(1)
            make(manager)

        RDTManager.__init__ = slowly


@pytest.fixture
def actors():
    made = [Actor.remote() for _ in range(3)]
    yield made
    for actor in made:
        ray.kill(actor)


def get(ref):
    return ray.get(ref, timeout=DEADLINE)


def until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_names():
    assert NAMES[0] == "NIXL_CONNECT"
    assert transport.register() == NAMES


def test_a_name_of_another_library(monkeypatch):
    from ray.experimental.rdt import util

    known = util.transport_manager_info["NIXL_CONNECT"]
    monkeypatch.setitem(
        util.transport_manager_info,
        "NIXL_CONNECT",
        known._replace(transport_manager_class=transport._JaxTransport),
    )
    with pytest.raises(ValueError, match="NIXL_CONNECT"):
        transport.register()


def test_from_actor_to_actors(actors):
    """Of every type and shape, to many at once, and again."""
    owner, *others = actors
    ref = owner.sample.remote(3)
    for _ in range(2):
        for arrays, text in get([actor.tell.remote(ref) for actor in others]):
            assert arrays == told(sampled(3))
            assert text == "text"
    assert get(owner.tell.remote(ref))[0] == told(sampled(3))  # itself: nothing is moved
    assert not any(get([actor.has_torch.remote() for actor in actors]))


def test_large(actors):
    ref = actors[0].whole.remote(64 << 20)
    assert get(actors[1].total.remote(ref)) == 7 * (64 << 20)


def test_get(actors):
    refs = [actor.sample.remote(i) for i, actor in enumerate(actors)]
    for i, got in enumerate(get(refs)):
        assert told(got["nested"][0]) == told(sampled(i))
        assert all(array.flags.writeable for array in flat(got["nested"][0]).values())
    assert get(actors[0].nothing.remote()) == "no array"


def test_put(actors):
    for arrays in ({"nested": [sampled(5)], "beside": "text"},):
        ref = ray.put(arrays, _tensor_transport="NIXL_CONNECT")
        assert get(actors[0].tell.remote(ref))[0] == told(sampled(5))
        assert told(get(ref)["nested"][0]) == told(sampled(5))


def test_memory_ends_with_the_last_reference(actors):
    ref = actors[0].whole.remote(1 << 20)
    assert get(actors[1].total.remote(ref)) == 7 << 20
    assert get(actors[0].held.remote()) == 1
    del ref
    gc.collect()
    until(lambda: get(actors[0].held.remote()) == 0)


def test_the_same_array_again(actors):
    refs = [actors[0].own.remote() for _ in range(3)]
    assert get([actors[1].total.remote(ref) for ref in refs]) == [499500] * 3
    assert get(actors[0].held.remote()) == 3


def test_the_first_array_of_an_actor(actors):
    """One thread waits for it, another receives it: both for the first time."""
    get(actors[1].hesitate.remote())
    ref = actors[0].own.remote()
    assert ray.get(actors[1].total.remote(ref), timeout=20) == 499500


def test_targets(actors):
    ref = actors[0].lines.remote()
    into = [np.zeros(10), np.zeros((2, 3), np.float32)]
    views = [transport.target(array) for array in into]
    ray.experimental.set_target_for_ref(ref, views)
    with pytest.raises(Exception, match="order"):  # the other one is in Fortran's
        get(ref)
    ref = actors[0].whole.remote(1000)
    mine = np.zeros(1000, np.uint8)
    view = transport.target(mine)
    ray.experimental.set_target_for_ref(ref, [view])
    assert get(ref) is view
    assert (mine == 7).all()


@pytest.mark.parametrize(
    ("kind", "text"), [("objects", "Python objects"), ("sparse", "contiguous")]
)
def test_what_cannot_be_sent(actors, kind, text):
    with pytest.raises(Exception, match=text):
        get(actors[0].bad.remote(kind))
    assert get(actors[1].total.remote(actors[0].whole.remote(10))) == 70


def test_the_actor_that_has_it_dies(actors):
    ref = actors[0].whole.remote(1000)
    assert get(actors[1].total.remote(ref)) == 7000
    process = Path("/proc", str(get(actors[0].pid.remote())))
    ray.kill(actors[0])
    until(lambda: not process.exists())
    with pytest.raises(Exception, match=r"RayDirectTransportError|died|dead"):
        get(actors[1].total.remote(ref))
    assert get(actors[1].total.remote(actors[2].whole.remote(10))) == 70


def test_an_actor_that_takes_it_dies(actors):
    ref = actors[0].whole.remote(64 << 20)
    get(actors[1].pid.remote())
    taken = actors[1].total.remote(ref)
    ray.kill(actors[1])
    with pytest.raises(ray.exceptions.RayError):
        get(taken)
    assert get(actors[2].total.remote(ref)) == 7 * (64 << 20)


@pytest.mark.skipif("NIXL_CONNECT_JAX" not in NAMES, reason="no JAX")
def test_jax(actors):
    ref = actors[0].of_jax.remote()
    expected = ("ArrayImpl", "bfloat16", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    assert get(actors[1].kind_of_jax.remote(ref)) == expected
    assert get(actors[0].held.remote()) == 1
    assert get(ref)["x"].tolist() == expected[2]


class TestInterface:
    """What Ray calls, called by ourselves: what it seldom needs, too."""

    @pytest.fixture
    def made(self):
        moving = transport._ArraysTransport()
        arrays = [np.arange(1000), np.ones((2, 3), order="F")]
        metadata = moving.extract_tensor_transport_metadata("some", arrays)
        yield moving, arrays, metadata
        moving.garbage_collect("some", metadata, arrays)
        moving.garbage_collect("some", metadata, arrays)

    def test_both_ways_to_fetch(self, made):
        moving, arrays, metadata = made
        assert moving.extract_tensor_transport_metadata("some", arrays) is metadata
        assert metadata.tensor_meta == [((1000,), np.dtype(int)), ((2, 3), np.dtype(float))]
        assert metadata.tensor_device == "cpu"
        nothing = moving.get_communicator_metadata(None, None, "NIXL_CONNECT")
        request = moving.fetch_multiple_tensors("some", metadata, nothing)
        for got in (
            moving.wait_fetch_complete(request, timeout=DEADLINE),
            moving.recv_multiple_tensors("some", metadata, nothing),
        ):
            assert all((x == y).all() for x, y in zip(arrays, got, strict=True))
        del request
        gc.collect()
        assert not moving._requests
        moving.abort_transport("some", nothing)
        moving.abort_transport("unknown", nothing)

    def test_aborted(self, made):
        moving, _, _ = made
        nothing = moving.get_communicator_metadata(None, None)
        big = np.zeros(1 << 29, np.uint8)
        metadata = moving.extract_tensor_transport_metadata("big", [big])
        request = moving.fetch_multiple_tensors("big", metadata, nothing)
        with pytest.raises(TimeoutError):
            moving.wait_fetch_complete(request, timeout=0)
        moving.abort_transport("big", nothing)
        with pytest.raises(ray.exceptions.RayDirectTransportError, match="cancelled"):
            moving.wait_fetch_complete(request)
        moving.garbage_collect("big", metadata, [big])

    def test_dropped(self, made):
        """As Ray drops what nobody waits for any more: it is cancelled, and nothing is kept."""
        moving, _, _ = made
        big = np.zeros(1 << 29, np.uint8)
        metadata = moving.extract_tensor_transport_metadata("big", [big])
        request = moving.fetch_multiple_tensors("big", metadata, None)
        array, connector = weakref.ref(request.tensors[0]), transport._process.connector()
        before = connector.stats()["ended"]["read"]["cancelled"]
        del request
        gc.collect()
        until(lambda: array() is None)
        assert connector.stats()["ended"]["read"]["cancelled"] == before + 1
        moving.garbage_collect("big", metadata, [big])

    def test_one_object_twice_at_once(self, made):
        moving, _, _ = made
        array = np.ones(3)
        with ThreadPoolExecutor(4) as threads:
            told = list(
                threads.map(
                    lambda _: moving.extract_tensor_transport_metadata("one", [array]), range(20)
                )
            )
        assert len({each.message for each in told}) == 1
        assert moving.recv_multiple_tensors("one", told[0], None)[0].sum() == 3
        moving.garbage_collect("one", told[0], [array])

    @pytest.mark.skipif("NIXL_CONNECT_JAX" not in NAMES, reason="no JAX")
    def test_a_type_that_jax_changes(self):
        """One that the process that made it could make."""
        moving, source = transport._JaxTransport(), transport._ArraysTransport()
        metadata = source.extract_tensor_transport_metadata("wide", [np.arange(3)])
        with pytest.raises(nc.ArgumentError, match="jax_enable_x64"):
            moving.recv_multiple_tensors("wide", metadata, None)

    def test_nothing(self, made):
        moving = made[0]
        metadata = moving.extract_tensor_transport_metadata("none", [])
        assert metadata.tensor_meta == []
        assert moving.recv_multiple_tensors("none", metadata, None) == []
        with pytest.raises(NotImplementedError):
            moving.send_multiple_tensors([], metadata, None)

    def test_it_is_one_of_ours(self, made):
        assert made[0].is_one_sided()
        assert made[0].can_abort_transport()
        assert made[0].tensor_transport_backend() == "NIXL_CONNECT"
        actor = Actor.remote()
        assert made[0].actor_has_tensor_transport(actor)
        ray.kill(actor)


def test_ray_that_is_missing(monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "ray":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "nixl_connect.ray")
    with pytest.raises(nc.LibraryError, match=r"nixl-connect\[ray\]"):
        import nixl_connect.ray  # noqa: F401
