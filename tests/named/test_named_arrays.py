"""Arrays with names, offered and fetched, expected and pushed."""

import asyncio
import gc
import mmap

import numpy as np
import pytest
from processes import DEADLINE
from sampled import flat, sampled, told

import nixl_connect as nc
from nixl_connect import arrays as named

BOTH = pytest.mark.parametrize("form", ["blocking", "asyncio"])
INTO = np.zeros(4)


def moved(form, what, *arguments, **options):
    """Call one of the functions, in one of its forms."""
    if form == "blocking":
        return getattr(named, f"{what}_blocking")(*arguments, **options)
    return asyncio.run(getattr(named, what)(*arguments, **options))


def same(one, other):
    """Assert that arrays are the same in everything."""
    assert told(one) == told(other)
    for name, array in flat(one).items():
        assert flat(other)[name].dtype == array.dtype, name


@pytest.fixture
def offered(make_connector):
    """Offer arrays to whoever comes; returns the message."""
    owner, offers = make_connector(), []

    def offer(arrays, **options):
        offers.append(named.offer_blocking(owner, arrays, transfers=None, **options))
        return offers[-1].message()

    yield offer
    while offers:  # the fixture is kept longer than they may be
        offers.pop().close()


class TestOverProcesses:
    """Both directions, with a peer that is another process."""

    @BOTH
    @pytest.mark.parametrize("compact", [False, True])
    def test_fetch(self, connector, peer, form, compact):
        answer = peer.do("offer_arrays", seed=3, compact=compact)
        message = bytes.fromhex(answer["message"]) if compact else answer["message"]
        got = moved(form, "fetch", connector, message)
        same(sampled(3), got)
        assert all(array.flags.writeable for array in flat(got).values())
        assert list(got) == list(sampled(3))
        peer.do("wait", number=answer["id"])

    def test_peer_fetches(self, connector, peer):
        with named.offer_blocking(connector, sampled(4), timeout=20) as offer:
            assert peer.do("fetch_arrays", message=offer.message())["arrays"] == told(sampled(4))
            offer.wait_blocking(DEADLINE)
            assert offer.status is nc.OperationStatus.COMPLETE
            assert offer.transfers_done == 1

    @BOTH
    def test_push(self, connector, peer, form):
        targets = {
            name: np.empty_like(array, order="A", subok=False)
            for name, array in flat(sampled(5)).items()
        }

        async def expected():
            async with await named.expect(connector, targets) as offer:
                task = asyncio.to_thread(peer.do, "push_arrays", message=offer.message(), seed=5)
                await asyncio.gather(task, offer.wait(DEADLINE))
                return offer.arrays

        if form == "asyncio":
            got = asyncio.run(expected())
        else:
            with named.expect_blocking(connector, targets) as offer:
                peer.do("push_arrays", message=offer.message(), seed=5)
                offer.wait_blocking(DEADLINE)
                got = offer.arrays
        same(flat(sampled(5)), got)
        assert all(got[name] is targets[name] for name in targets)

    def test_several_push(self, connector, start_peer):
        names = ["plain", "big", "records"]
        sources = flat(sampled(6))
        specs = {name: (sources[name].shape, sources[name].dtype) for name in names}
        with named.expect_blocking(connector, specs, transfers=3) as offer:
            for name in names:
                start_peer().do("push_arrays", message=offer.message(), seed=6, only=[name])
            offer.wait_blocking(DEADLINE)
            same({name: sources[name] for name in names}, offer.arrays)

    def test_a_reader_is_killed_and_others_go_on(self, connector, start_peer):
        with named.offer_blocking(connector, sampled(7), transfers=3, timeout=30) as offer:
            peers = [start_peer() for _ in range(4)]
            peers[0].do("fetch_arrays", message=offer.message(), only=["plain"])
            peers[0].kill()
            for peer in peers[1:3]:
                assert peer.do("fetch_arrays", message=offer.message())["arrays"] == told(
                    sampled(7)
                )
            offer.wait_blocking(DEADLINE)
            assert offer.transfers_done == 3


class TestFetch:
    """What comes back, and where to."""

    @BOTH
    def test_only(self, connector, offered, form):
        arrays = sampled(1)
        message = offered(arrays)
        got = moved(form, "fetch", connector, message, only=["layers.1", "views.e", "plain"])
        same({"plain": arrays["plain"], "layers": {"1": arrays["layers"]["1"]},
              "views": {"e": arrays["views"]["e"]}}, got)  # fmt: skip
        same({"big": arrays["big"]}, moved(form, "fetch", connector, message, only="big"))

    def test_only_moves_nothing_else(self, connector, offered):
        message = offered({"a": np.ones(1000, np.uint8), "b": np.ones(10, np.uint8)})
        named.fetch_blocking(connector, message, only="b")
        assert connector.stats()["ended"]["read"]["bytes"] == 10

    def test_sequence(self, connector, offered):
        arrays = [np.arange(3), np.float32([[1, 2]]), np.empty(0)]
        message = offered(arrays)
        got = named.fetch_blocking(connector, message)
        assert isinstance(got, list)
        for one, other in zip(arrays, got, strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        (second,) = named.fetch_blocking(connector, message, only=1)
        assert np.array_equal(second, arrays[1])
        into = [np.empty((1, 2), np.float32), np.empty(0)]
        assert named.fetch_blocking(connector, message, only=[1, "2"], into=into)[0] is into[0]
        assert np.array_equal(into[0], arrays[1])

    @BOTH
    def test_into(self, connector, offered, form):
        arrays = flat(sampled(2))
        for name in ("views.d", "views.e"):  # they overlap
            del arrays[name]
        message = offered(arrays)
        into = {name: np.zeros_like(array, subok=False) for name, array in arrays.items()}
        got = moved(form, "fetch", connector, message, into=into)
        same(arrays, into)
        assert all(got[name] is into[name] for name in into)

    @BOTH
    def test_pool(self, connector, offered, form):
        message = offered(sampled(8))
        with nc.HostPool(connector, max_bytes=1 << 20, slab_bytes=1 << 16) as pool:
            for _ in range(3):
                got = moved(form, "fetch", connector, message, pool=pool)
                same(sampled(8), got)
                registered = connector.stats()["registrations"]
                assert pool.stats()["leases"] == 1
                one = got["views"]["b"]
                del got
                gc.collect()
                assert pool.stats()["leases"] == 1
                assert one[0] == sampled(8)["views"]["b"][0]
                del one
                gc.collect()
                assert pool.stats()["leases"] == 0
                assert connector.stats()["registrations"] == registered

    def test_a_lease_is_no_larger_than_the_arrays(self, connector, offered):
        """Of a power of two: a byte more would be twice that."""
        message = offered({str(i): np.ones(1 << 14, np.uint8) for i in range(8)})
        with nc.HostPool(connector, max_bytes=1 << 17, slab_bytes=1 << 17) as pool:
            got = named.fetch_blocking(connector, message, pool=pool)
            assert pool.stats()["leased_bytes"] == 1 << 17
            with pytest.raises(nc.PoolExhaustedError):
                named.fetch_blocking(connector, message, pool=pool, timeout=0.1)
            with pytest.raises(nc.PoolExhaustedError):
                asyncio.run(named.fetch(connector, message, pool=pool, timeout=0.1))
            assert all((array == 1).all() for array in got.values())
            del got

    def test_large_arrays_lie_in_pages_as_at_the_peer(self, connector, offered):
        """Within a host the kernel copies page by page; otherwise two copies for each."""
        whole = np.ones(1 << 20, np.uint8)
        arrays = {str(i): whole[i * 200_000 : i * 200_000 + 100_000 + i] for i in range(4)}
        message = offered(arrays)
        with nc.HostPool(connector, max_bytes=1 << 20, slab_bytes=1 << 20) as pool:
            got = named.fetch_blocking(connector, message, pool=pool)
            for name, array in arrays.items():
                assert got[name].ctypes.data % 4096 == array.ctypes.data % 4096
            same(arrays, got)
            del got, array
            gc.collect()

    def test_all_is_aligned_as_it_was(self, connector, offered):
        whole = np.zeros(4096, np.uint8)
        start = (4 - whole.ctypes.data) % 64
        views = {
            "a": whole[start : start + 4].view(np.float32),
            "b": whole[start + 4 : start + 4 + 80].view(np.float64),
        }
        message = offered(views)
        with nc.HostPool(connector, max_bytes=1 << 16, slab_bytes=1 << 16) as pool:
            for options in ({}, {"pool": pool}):
                for array in named.fetch_blocking(connector, message, **options).values():
                    assert array.flags.aligned
        gc.collect()

    def test_many_arrays_in_one_operation(self, connector, make_connector, content):
        owner = make_connector()
        arrays = {f"layer.{i}": content(i, 100 + i) for i in range(3000)}
        with named.offer_blocking(owner, arrays) as offer:
            same(arrays, named.fetch_blocking(connector, offer.message()))
            offer.wait_blocking(DEADLINE)

    def test_views_of_one_file_are_one_region(self, connector, make_connector, content, tmp_path):
        path = tmp_path / "weights"
        path.write_bytes(content(1, 10_000).tobytes())
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {str(i): np.frombuffer(mapped, np.uint8, 1000, offset=1000 * i) for i in range(10)}
        with named.offer_blocking(make_connector(), arrays) as offer:
            assert len(offer.operation.metadata().descriptors) == 1
            same(arrays, named.fetch_blocking(connector, offer.message()))
        memory = np.memmap(path, np.uint8, "r")
        with named.offer_blocking(make_connector(), {"all": memory}) as offer:
            assert (named.fetch_blocking(connector, offer.message())["all"] == memory).all()

    def test_without_any_byte(self, connector, make_connector):
        arrays = {"a": np.empty((0, 5)), "b": np.empty(0, np.int8)}
        with named.offer_blocking(make_connector(), arrays) as offer:
            same(arrays, named.fetch_blocking(connector, offer.message()))
            offer.wait_blocking(DEADLINE)
        with named.expect_blocking(make_connector(), arrays) as offer:
            named.push_blocking(connector, offer.message(), arrays)
            offer.wait_blocking(DEADLINE)

    def test_only_what_has_no_byte(self, connector, make_connector):
        arrays = {"a": np.empty((0, 5)), "b": np.ones(2)}
        with named.offer_blocking(make_connector(), arrays) as offer:
            same({"a": arrays["a"]}, named.fetch_blocking(connector, offer.message(), only="a"))
            offer.wait_blocking(DEADLINE)


class TestKinds:
    """What is no NumPy array, or of a type that NumPy does not know."""

    def test_buffers(self, connector, offered):
        view = memoryview(bytearray(range(24))).cast("i", (2, 3))
        got = named.fetch_blocking(
            connector, offered({"bytes": b"abc", "bytearray": bytearray(b"de"), "view": view})
        )
        assert got["bytes"].tobytes() == b"abc"
        assert got["bytearray"].tobytes() == b"de"
        assert got["view"].dtype == np.int32
        assert (got["view"] == np.asarray(view)).all()

    @pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
    def test_ml_dtypes(self, connector, offered, make_connector, kind):
        ml_dtypes = pytest.importorskip("ml_dtypes")
        array = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, kind))
        got = named.fetch_blocking(connector, offered({"x": array}))["x"]
        assert got.dtype == array.dtype
        assert (got == array).all()
        with named.expect_blocking(make_connector(), {"x": ((2, 3), kind)}) as offer:
            named.push_blocking(connector, offer.message(), {"x": array})
            offer.wait_blocking(DEADLINE)
            assert (offer.arrays["x"] == array).all()

    @pytest.mark.parametrize("name", ["BF16", "F8_E4M3", "F32", "I64", "BOOL", ">f4", "float16"])
    def test_names_of_types(self, connector, name):
        if name.startswith(("BF", "F8")):
            pytest.importorskip("ml_dtypes")
        with named.expect_blocking(connector, {"x": (5, name)}) as offer:
            assert offer.arrays["x"].shape == (5,)

    @pytest.mark.parametrize(
        ("array", "text"),
        [
            (np.array([None]), "Python objects"),
            (np.ma.masked_array([1, 2], [True, False]), "masked"),
            (np.arange(10)[::2], "copy=True"),
            (np.arange(12).reshape(2, 2, 3).transpose(1, 0, 2), "copy=True"),
            (np.zeros(2, np.longdouble), "between machines"),
            (np.zeros(2, [("a", object)]), "Python objects"),
            (np.zeros(2, [("a", "g")]), "machines"),
            (np.zeros((1,) * 33) if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else
             np.array([None]), "dimensions|objects"),
        ],
    )  # fmt: skip
    def test_refused(self, connector, array, text):
        with pytest.raises(nc.ArgumentError, match=text):
            named.offer_blocking(connector, {"x": array})

    @pytest.mark.parametrize(
        ("arrays", "error"),
        [
            ({}, nc.ArgumentError),
            ([], nc.ArgumentError),
            (np.ones(3), nc.ArgumentTypeError),
            ("abc", nc.ArgumentTypeError),
            ({"x": "abc"}, nc.ArgumentTypeError),
            ({"x": None}, nc.ArgumentTypeError),
            ({"x": [1, 2]}, nc.ArgumentTypeError),
            ({"x": np.float64(2)}, nc.ArgumentTypeError),
            ({1: np.ones(3)}, nc.ArgumentTypeError),
            ({"x": {}}, nc.ArgumentError),
            ({"a.b": np.ones(1), "a": {"b": np.ones(1)}}, nc.ArgumentError),
            ({"x" * 2000: np.ones(1)}, nc.ArgumentError),
            ({"\ud800": np.ones(1)}, nc.ArgumentError),
        ],
        ids=range(13),
    )
    def test_no_arrays(self, connector, arrays, error):
        with pytest.raises(error):
            named.offer_blocking(connector, arrays)

    @pytest.mark.parametrize(
        "spec", [(3,), (3, "f4", 1), ((-1,), "f4"), (3, "nosuch"), (3, object), (3, None)]
    )
    def test_no_specs(self, connector, spec):
        with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError)):
            named.expect_blocking(connector, {"x": spec})

    def test_what_says_no_strides(self, connector, offered):
        """The order is that of the memory, whatever the object keeps to itself."""
        turned = np.asfortranarray(np.arange(6).reshape(2, 3))
        got = named.fetch_blocking(connector, offered({"x": Exported(turned)}))["x"]
        assert (got == turned).all()
        assert got.flags.f_contiguous

    def test_a_byte_order_that_has_no_name(self, connector):
        ml_dtypes = pytest.importorskip("ml_dtypes")
        swapped = np.zeros(3, ml_dtypes.bfloat16)
        swapped = swapped.view(np.dtype(ml_dtypes.bfloat16).newbyteorder(">"))
        with pytest.raises(nc.ArgumentError, match="byte order"):
            named.offer_blocking(connector, {"x": swapped})

    def test_a_field_that_is_no_text(self, connector):
        with pytest.raises(nc.ArgumentError, match="no text"):
            named.offer_blocking(connector, {"x": np.zeros(2, [("\ud800", "i4")])})

    def test_a_connector_that_is_none(self):
        with pytest.raises(nc.ArgumentTypeError, match="connector"):
            named.offer_blocking(None, {"x": np.ones(1)})

    def test_copy(self, connector, offered):
        sparse = np.arange(20).reshape(4, 5)[:, 1:3]
        got = named.fetch_blocking(connector, offered({"x": sparse}, copy=True))
        assert (got["x"] == sparse).all()


class TestDisagreement:
    """Nothing moves where names, shapes, types or orders differ."""

    SOURCE: dict = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4, dtype=np.int32)}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("into", "text"),
        [
            ({"a": np.zeros((2, 3))}, "missing 'b'"),
            ({"a": np.zeros((2, 3)), "b": np.zeros(4, "i4"), "c": INTO}, "unknown 'c'"),
            ({"a": np.zeros((3, 2)), "b": np.zeros(4, "i4")}, "shape"),
            ({"a": np.zeros((2, 3), "f4"), "b": np.zeros(4, "i4")}, "type"),
            ({"a": np.zeros((2, 3), order="F"), "b": np.zeros(4, "i4")}, "order"),
            ({"a": np.broadcast_to(0.0, (2, 3)), "b": np.zeros(4, "i4")}, "contiguous"),
            ({"a": np.zeros((2, 3)), "b": np.frombuffer(bytes(16), "i4")}, "read-only"),
            ({"a": INTO[:0].reshape(0, 3), "b": np.zeros(4, "i4")}, "shape"),
        ],
        ids=range(8),
    )
    def test_into_and_pushed(self, connector, offered, make_connector, into, text):
        with pytest.raises(nc.ArgumentError, match=text):
            named.fetch_blocking(connector, offered(self.SOURCE), into=into)
        if text == "read-only":
            return
        targets = {name: np.full_like(array, 77) for name, array in self.SOURCE.items()}
        with named.expect_blocking(make_connector(), targets) as offer:
            with pytest.raises(nc.ArgumentError, match=text):
                named.push_blocking(connector, offer.message(), into)
            assert offer.status is nc.OperationStatus.INITIALIZED
            assert all((array == 77).all() for array in targets.values())

    def test_overlapping_targets(self, connector, offered):
        whole = np.zeros(10)
        with pytest.raises(nc.ArgumentError, match="overlap"):
            named.fetch_blocking(
                connector,
                offered({"a": np.ones(5), "b": np.ones(5)}),
                into={"a": whole[:5], "b": whole[4:9]},
            )
        with pytest.raises(nc.ArgumentError, match="overlap"):
            named.expect_blocking(connector, {"a": whole[:5], "b": whole[4:9]})

    def test_readonly_targets(self, connector):
        with pytest.raises(nc.ArgumentError, match="read-only"):
            named.expect_blocking(connector, {"a": b"abc"})

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"only": "c"}, nc.ArgumentError),
            ({"only": []}, nc.ArgumentError),
            ({"only": 1.5}, nc.ArgumentTypeError),
            ({"only": [True]}, nc.ArgumentTypeError),
            ({"max_bytes": 63}, nc.MetadataError),
            ({"max_arrays": 1}, nc.MetadataError),
            ({"max_arrays": 0}, nc.ArgumentError),
            ({"pool": 5}, nc.ArgumentTypeError),
            ({"device": "xpu:0"}, nc.ArgumentError),
            ({"device": "tpu"}, nc.ArgumentError),
            ({"device": "cpu", "into": {}}, nc.ArgumentError),
            ({"timeout": -1}, nc.ArgumentError),
        ],
        ids=range(12),
    )
    def test_options(self, connector, offered, options, error):
        with pytest.raises(error):
            named.fetch_blocking(connector, offered(self.SOURCE), **options)
        assert named.fetch_blocking(connector, offered(self.SOURCE), max_bytes=64)

    def test_the_wrong_direction(self, connector, offered, make_connector):
        with pytest.raises(nc.PairingError, match="fetch"):
            named.push_blocking(connector, offered(self.SOURCE), self.SOURCE)
        with (
            named.expect_blocking(make_connector(), {"x": (3, "f4")}) as offer,
            pytest.raises(nc.PairingError, match="push"),
        ):
            named.fetch_blocking(connector, offer.message())

    def test_another_order(self, connector, make_connector):
        """A copy in the order that is expected, if the program allows copies."""
        turned = {"a": np.asfortranarray(self.SOURCE["a"]), "b": self.SOURCE["b"]}
        specs = {name: (array.shape, array.dtype) for name, array in self.SOURCE.items()}
        with named.expect_blocking(make_connector(), specs) as offer:
            with pytest.raises(nc.ArgumentError, match="of order F, but of order C"):
                named.push_blocking(connector, offer.message(), turned)
            named.push_blocking(connector, offer.message(), turned, copy=True)
            offer.wait_blocking(DEADLINE)
            same(self.SOURCE, offer.arrays)


class TestOrderAndTies:
    """Which array is which, where their shapes and types do not tell."""

    ALIKE = [np.full(3, i) for i in range(4)]  # noqa: RUF012

    def test_a_sequence_comes_in_the_order_that_is_named(self, connector, offered):
        message = offered(self.ALIKE)
        got = named.fetch_blocking(connector, message, only=[2, "0", np.int64(3), 2])
        assert [array[0] for array in got] == [2, 0, 3]
        into = [np.zeros(3, int) for _ in range(2)]
        named.fetch_blocking(connector, message, only=[3, 1], into=into)
        assert [array[0] for array in into] == [3, 1]
        by_name = {"1": np.zeros(3, int), "3": np.zeros(3, int)}
        named.fetch_blocking(connector, message, only=[3, 1], into=by_name)
        assert [array[0] for array in by_name.values()] == [1, 3]

    def test_a_sequence_goes_in_the_order_that_is_named(self, connector, make_connector):
        with named.expect_blocking(make_connector(), [(3, int)] * 4, transfers=2) as offer:
            named.push_blocking(connector, offer.message(), self.ALIKE[2:], only=[0, 3])
            named.push_blocking(connector, offer.message(), self.ALIKE[:2], only=[2, 1])
            offer.wait_blocking(DEADLINE)
            assert [array[0] for array in offer.arrays] == [2, 1, 0, 3]

    def test_tied_arrays(self, connector, offered, make_connector):
        whole = np.arange(1000)
        tied = {"embedding": whole, "head": whole, "other": np.ones(3)}
        message = offered(tied)
        same(tied, named.fetch_blocking(connector, message))
        assert connector.stats()["ended"]["read"]["bytes"] == 8024
        mine = np.zeros(1000, int)
        into = {"embedding": mine, "head": mine, "other": np.zeros(3)}
        same(tied, named.fetch_blocking(connector, message, into=into))
        with pytest.raises(nc.ArgumentError, match=r"'embedding'.*'head'.* in common"):
            named.fetch_blocking(connector, message, into=into | {"head": np.zeros(1000, int)})
        with pytest.raises(nc.ArgumentError, match="one array for two names"):
            named.fetch_blocking(
                connector,
                offered({"embedding": whole, "head": whole + 1, "other": np.ones(3)}),
                into=into,
            )
        mine[:] = 0
        with named.expect_blocking(make_connector(), into) as offer:
            with pytest.raises(nc.ArgumentError, match="in common"):
                named.push_blocking(connector, offer.message(), tied | {"head": whole + 1})
            named.push_blocking(connector, offer.message(), tied)
            offer.wait_blocking(DEADLINE)
            same(tied, offer.arrays)

    def test_overlapping_views_into(self, connector, offered):
        whole = np.arange(1000)
        message = offered({"a": whole[:600], "b": whole[400:]})
        with pytest.raises(nc.ArgumentError, match=r"into\['a'\] and into\['b'\] have bytes"):
            named.fetch_blocking(
                connector, message, into={"a": np.zeros(600, int), "b": np.zeros(600, int)}
            )

    def test_names_that_a_mapping_has_too(self, connector):
        for arrays in (
            {"a.b": np.ones(1), "a": {"b": {"c": np.ones(1)}}},
            {"a": {"b": np.ones(1)}, "a.b": {"c": np.ones(1)}},
        ):
            with pytest.raises(nc.ArgumentError, match="two things"):
                named.offer_blocking(connector, arrays)


class Exported:
    """An object whose memory is another's, as it says it is."""

    def __init__(self, array, **said):
        self.array, self.said = array, said

    def __getattr__(self, name):
        if name in self.said:
            return self.said[name]
        if name in ("__array_interface__", "__dlpack__", "__dlpack_device__", "dtype", "shape"):
            return getattr(self.array, name)
        raise AttributeError(name)


class TestOffers:
    """The object that the owner has."""

    def test_close_ends_it(self, make_connector):
        owner = make_connector()
        one = named.offer_blocking(owner, {"x": np.ones(3)})
        one.message()
        one.close()
        assert one.status is nc.OperationStatus.CANCELLED
        with pytest.raises(nc.OperationCancelledError):
            one.wait_blocking(1)
        many = named.offer_blocking(owner, {"x": np.ones(3)}, transfers=None)
        many.close()
        many.close()
        many.wait_blocking(1)
        assert many.status is nc.OperationStatus.COMPLETE
        with pytest.raises(nc.StateError):
            named.offer_blocking(owner, {"x": np.ones(3)}).operation.finish()

    def test_keep(self, connector, make_connector):
        ended = []
        offer = named.offer_blocking(make_connector(), {"x": np.ones(3)})
        offer.keep(ended.append)
        message = offer.message()
        expected = repr(offer)[:16]
        del offer
        gc.collect()
        assert named.fetch_blocking(connector, message)["x"].sum() == 3
        for _ in range(200):
            if ended:
                break
            asyncio.run(asyncio.sleep(0.05))
        assert repr(ended.pop())[:16] == expected
        with (
            named.offer_blocking(connector, {"x": np.ones(3)}) as other,
            pytest.raises(nc.ArgumentTypeError),
        ):
            other.keep(5)

    def test_it_waits_no_longer_than_it_may(self, connector):
        with named.offer_blocking(connector, {"x": np.ones(3)}) as offer:
            with pytest.raises(nc.WaitTimeoutError):
                offer.wait_blocking(0.01)
            with pytest.raises(nc.WaitTimeoutError):
                asyncio.run(offer.wait(0.01))


KEY, OTHER = b"sixteen bytes or more", b"another one of sixteen"


class TestKeys:
    """With keys, the message is what the offer's owner said, or nothing is allocated."""

    def test_sealed(self, make_connector):
        owner, mover = make_connector(keys=[KEY]), make_connector(keys=[OTHER, KEY])
        with named.offer_blocking(owner, sampled(1), transfers=2) as offer:
            same(sampled(1), named.fetch_blocking(mover, offer.message()))
            same(sampled(1), named.fetch_blocking(mover, offer.message_bytes()))

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.replace('"seal":"', '"seal":"x'),
            lambda m: m.replace('"float64",[3,4,5]', '"float64",[5,4,3]'),
            lambda m: m.replace('"plain"', '"plane"'),
            lambda m: m.replace('"sequence":false', '"sequence":true'),
        ],
        ids=range(4),
    )
    def test_altered(self, make_connector, change):
        owner, mover = make_connector(keys=[KEY]), make_connector(keys=[KEY])
        with named.offer_blocking(owner, sampled(1)) as offer:
            message = offer.message()
            assert change(message) != message
            with pytest.raises(nc.AuthenticationError):
                named.fetch_blocking(mover, change(message))

    def test_of_another_offer_or_key_or_none(self, make_connector):
        import json

        owner, mover = make_connector(keys=[KEY]), make_connector(keys=[KEY])
        one = named.offer_blocking(owner, {"x": np.ones(4)})
        other = named.offer_blocking(owner, {"y": np.ones(4)})
        swapped = json.loads(one.message())
        swapped["operation"] = json.loads(other.message())["operation"]
        with pytest.raises(nc.AuthenticationError):
            named.fetch_blocking(mover, json.dumps(swapped))
        for stranger in (make_connector(keys=[OTHER]), make_connector()):
            with (
                named.offer_blocking(stranger, {"x": np.ones(4)}) as offer,
                pytest.raises(nc.AuthenticationError),
            ):
                named.fetch_blocking(mover, offer.message())
        one.close()
        other.close()
