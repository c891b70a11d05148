"""Arrays from one Ray actor to another, over this library: a transport of Ray Direct Transport.

    import nixl_connect.ray

    nixl_connect.ray.register()  # before the classes of actors, in the process that makes actors


    @ray.remote
    class Model:
        @ray.method(tensor_transport="NIXL_CONNECT")
        def weights(self): ...  # returns NumPy arrays, in anything that can be pickled

Ray sends what such a method returns as ever, but for its arrays: these stay in the actor's memory
until nobody refers to the result any more, and each actor that is given the result reads them from
there. Needs Ray 2.60 or later, and no torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import traceback
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nixl_connect.arrays import Offer, offer_blocking
from nixl_connect.arrays.fetching import Fetching
from nixl_connect.connector import Connector
from nixl_connect.errors import ArgumentError, LibraryError, NixlConnectError, WaitTimeoutError

try:
    from ray.experimental import register_tensor_transport
    from ray.experimental.rdt.tensor_transport_manager import (
        CommunicatorMetadata,
        FetchRequest,
        TensorTransportManager,
        TensorTransportMetadata,
    )
except ImportError as _error:
    raise LibraryError(
        f"nixl_connect.ray needs Ray 2.60 or later (pip install 'nixl-connect[ray]'): {_error}"
    ) from None

if TYPE_CHECKING:
    from nixl_connect.operations.active import ReadOperation

__all__ = ["register", "target"]


class Target(np.ndarray[Any, Any]):
    """A NumPy array that Ray takes as a target: see `target`."""

    def is_contiguous(self) -> bool:
        """Whether it is in C order: Ray asks, as if it were torch's."""
        return bool(self.flags.c_contiguous)


def target(array: np.ndarray[Any, Any]) -> Target:
    """Return a view of an array for `ray.experimental.set_target_for_ref`.

    Ray asks targets what only tensors of torch answer. It keeps a weak reference: refer to the view
    until ``ray.get`` has returned. The data is then in `array`.
    """
    return array.view(Target)


@dataclass
class _ArraysMetadata(TensorTransportMetadata):
    """What Ray sends in the place of arrays."""

    message: bytes = b""
    """That of the offer; empty if there are no arrays."""


class _ArraysRequest(FetchRequest):
    """A fetch that has begun. Ray drops it when nobody waits any more, and so cancels it."""

    def __init__(self, obj_id: str, tensors: list[Any], operation: ReadOperation | None) -> None:
        super().__init__(obj_id, tensors)
        # Nobody else may hold it.
        self.operation: ReadOperation | None = operation


class _Process:
    """What all transports of a process share: one connector, opened when it is first used.

    Its quarantine is 0: Ray lets go of memory only when no task refers to it any more, so there are
    no late readers but those whose tasks were given up, and nobody sees what these read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connector: Connector | None = None

    def connector(self) -> Connector:
        with self._lock:
            if self._connector is None:
                self._connector = Connector(quarantine=0)
            return self._connector


_process = _Process()


class _ArraysTransport(TensorTransportManager):
    """The transport of NumPy's arrays. Ray has one in each process, and calls it on any thread."""

    NAME: ClassVar[str] = "NIXL_CONNECT"

    def __init__(self) -> None:
        # Guards what follows: Ray collects garbage and aborts on threads of its own.
        self._lock = threading.Lock()
        self._offers: dict[str, tuple[Offer, _ArraysMetadata]] = {}
        self._requests: weakref.WeakValueDictionary[int, _ArraysRequest] = (
            weakref.WeakValueDictionary()
        )

    def tensor_transport_backend(self) -> str:
        """Return its name."""
        return self.NAME

    @staticmethod
    def is_one_sided() -> bool:
        """Return that those who receive need nobody to send."""
        return True

    @staticmethod
    def can_abort_transport() -> bool:
        """Return that Ray need not kill actors where a transfer fails."""
        return True

    def actor_has_tensor_transport(self, actor: Any) -> bool:
        """Return whether NIXL can be used in an actor's process."""
        import ray

        answer = actor.__ray_call__.options(concurrency_group="_ray_system").remote(_is_usable)
        return bool(ray.get(answer))

    def extract_tensor_transport_metadata(
        self, obj_id: str, rdt_object: list[Any]
    ) -> _ArraysMetadata:
        """Offer arrays, to as many as come."""
        with self._lock:
            made = self._offers.get(obj_id)
        if made is not None:  # Ray does a task again whose answer was lost
            return made[1]
        self._refuse(rdt_object)
        described = [(tuple(array.shape), array.dtype) for array in rdt_object]
        metadata = _ArraysMetadata(described, self._device_of(rdt_object))
        if not rdt_object:
            return metadata
        try:
            offer = offer_blocking(_process.connector(), rdt_object, transfers=None)
        except ArgumentError as error:
            raise ArgumentError(f"{self.NAME}: an array of the result: {error}") from None
        metadata.message = offer.message_bytes()
        with self._lock:
            first, metadata = self._offers.setdefault(obj_id, (offer, metadata))
        if first is not offer:
            offer.close()
        return metadata

    def _refuse(self, arrays: list[Any]) -> None:
        """Raise if these cannot be sent for a reason of their own kind."""

    def _device_of(self, arrays: list[Any]) -> str | None:
        return "cpu" if arrays else None

    def get_communicator_metadata(
        self, src_actor: Any, dst_actor: Any, backend: str | None = None
    ) -> CommunicatorMetadata:
        """Return nothing: the arrays' metadata says all."""
        return CommunicatorMetadata()

    def fetch_multiple_tensors(
        self,
        obj_id: str,
        tensor_transport_metadata: _ArraysMetadata,
        communicator_metadata: CommunicatorMetadata,
        target_buffers: Sequence[Any] | None = None,
    ) -> _ArraysRequest:
        """Begin to read arrays, into new ones or into those given."""
        if not tensor_transport_metadata.message:
            return _ArraysRequest(obj_id, [], None)
        connector = _process.connector()
        place = self._place(tensor_transport_metadata) if target_buffers is None else None
        try:
            plan = Fetching(
                connector,
                tensor_transport_metadata.message,
                into=None if target_buffers is None else list(target_buffers),
                pool=None,
                device=place,
                only=None,
                # Whoever may send this may run any code here.
                max_bytes=sys.maxsize,
                max_arrays=max(1, len(tensor_transport_metadata.tensor_meta)),
            )
            plan.lay(None)
            operation = connector.begin_read_blocking(
                plan.metadata, plan.descriptors, timeout=_patience(), parts=plan.parts
            )
        except NixlConnectError:
            raise _failed(obj_id) from None
        with contextlib.ExitStack() as undo:
            undo.enter_context(operation)
            request = _ArraysRequest(obj_id, plan.result(), operation)
            undo.pop_all()
        with self._lock:
            self._requests[id(request)] = request
        return request

    def _place(self, metadata: _ArraysMetadata) -> str | None:
        """Return the device on which new arrays are made."""
        return None

    def wait_fetch_complete(self, fetch_request: FetchRequest, timeout: float = -1) -> list[Any]:
        """Wait until arrays have been read, and return them.

        Raises
        ------
        TimeoutError
            They have not within `timeout` seconds, of which -1 are as many as it takes.
        ray.exceptions.RayDirectTransportError
            They cannot be read: the actor that has them died, or the transfer was aborted.
        """
        assert isinstance(fetch_request, _ArraysRequest)
        operation = fetch_request.operation
        tensors: list[Any] = fetch_request.tensors
        if operation is None:
            return tensors
        try:
            operation.wait_for_completion_blocking(None if timeout < 0 else timeout)
        except WaitTimeoutError as error:
            raise TimeoutError(str(error)) from None
        except NixlConnectError:
            raise _failed(fetch_request.obj_id) from None
        return self._finished(tensors)

    def _finished(self, arrays: list[Any]) -> list[Any]:
        return arrays

    def recv_multiple_tensors(
        self,
        obj_id: str,
        tensor_transport_metadata: _ArraysMetadata,
        communicator_metadata: CommunicatorMetadata,
        target_buffers: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Read arrays, and return them."""
        request = self.fetch_multiple_tensors(
            obj_id, tensor_transport_metadata, communicator_metadata, target_buffers
        )
        return self.wait_fetch_complete(request)

    def send_multiple_tensors(
        self,
        tensors: list[Any],
        tensor_transport_metadata: TensorTransportMetadata,
        communicator_metadata: CommunicatorMetadata,
    ) -> None:
        """Refuse: nobody has to send."""
        raise NotImplementedError(f"{self.NAME}: arrays are read by those who receive them")

    def garbage_collect(
        self, obj_id: str, tensor_transport_meta: TensorTransportMetadata, tensors: list[Any]
    ) -> None:
        """End the offer of arrays that no task refers to any more."""
        with self._lock:
            made = self._offers.pop(obj_id, None)
        if made is not None:
            made[0].close()

    def abort_transport(self, obj_id: str, communicator_metadata: CommunicatorMetadata) -> None:
        """Cancel what is being read of an object."""
        with self._lock:
            requests = [each for each in self._requests.values() if each.obj_id == obj_id]
        for request in requests:
            if request.operation is not None:
                request.operation.cancel()


class _CupyTransport(_ArraysTransport):
    """The transport of CuPy's arrays."""

    NAME = "NIXL_CONNECT_CUPY"

    def _device_of(self, arrays: list[Any]) -> str | None:
        return "cuda" if arrays else None

    def _place(self, metadata: _ArraysMetadata) -> str | None:
        return "cuda"


class _JaxTransport(_ArraysTransport):
    """The transport of JAX's arrays, on the host or on CUDA devices."""

    NAME = "NIXL_CONNECT_JAX"

    def _device_of(self, arrays: list[Any]) -> str | None:
        if not arrays:
            return None
        # As Ray names devices; JAX says gpu, or cuda in newer releases.
        (device,) = arrays[0].devices()
        return "cpu" if device.platform == "cpu" else "cuda"

    def _refuse(self, arrays: list[Any]) -> None:
        for array in arrays:
            if len(array.devices()) > 1:
                raise ArgumentError(
                    f"{self.NAME}: an array on {len(array.devices())} devices; return its "
                    "addressable_shards"
                )

    def _place(self, metadata: _ArraysMetadata) -> str | None:
        device: str | None = metadata.tensor_device
        return device

    def _finished(self, arrays: list[Any]) -> list[Any]:
        import jax

        if all(isinstance(array, np.ndarray) for array in arrays):
            # To the host, even where there is a GPU, since they were there.
            host = jax.devices("cpu")[0]
            made = [jax.device_put(array, host) for array in arrays]
        else:
            made = [jax.dlpack.from_dlpack(array) for array in arrays]
        for array, one in zip(arrays, made, strict=True):
            if array.dtype != one.dtype:
                raise ArgumentError(
                    f"{self.NAME}: JAX makes {one.dtype} of {array.dtype} in this process; set "
                    "jax_enable_x64 here as where the array was made"
                )
        return made


def _is_usable(_actor: Any) -> bool:
    try:
        _process.connector()._open()
    except NixlConnectError:
        return False
    return True


def _patience() -> float:
    """Return after how many seconds Ray gives up a transfer."""
    from ray._private import ray_constants

    return float(ray_constants.RDT_FETCH_FAIL_TIMEOUT_SECONDS)


def _failed(obj_id: str) -> Exception:
    """Return Ray's error for the one that is being handled, with its text."""
    from ray.exceptions import RayDirectTransportError

    error: Exception = RayDirectTransportError(
        f"The transfer of object {obj_id} failed; the actor that has it may have died:\n"
        f"{traceback.format_exc()}"
    )
    return error


def register() -> list[str]:
    """Register the transports with Ray: once, or again without effect.

    Call it in the process that makes actors, before their classes: Ray looks for the names that
    these give. Actors then know of it.

    Returns
    -------
    list of str
        Their names: ``"NIXL_CONNECT"`` for NumPy's arrays; and ``"NIXL_CONNECT_CUPY"`` and
        ``"NIXL_CONNECT_JAX"`` for CuPy's and JAX's, where these are installed.

    Raises
    ------
    ValueError
        Another library has registered such a name.
    """
    kinds: list[tuple[type[_ArraysTransport], list[str], Any]] = [
        (_ArraysTransport, ["cpu"], np.ndarray)
    ]
    if importlib.util.find_spec("cupy") is not None:
        import cupy

        kinds.append((_CupyTransport, ["cuda"], cupy.ndarray))
    if importlib.util.find_spec("jax") is not None:
        # Ray looks for the very class of an object, of which `jax.Array` is an abstract base; to
        # make an array and ask it would start JAX's devices in a process that may not have any.
        from jax._src.array import ArrayImpl

        kinds.append((_JaxTransport, ["cpu", "cuda"], ArrayImpl))
    for transport, devices, data_type in kinds:
        _register(transport, devices, data_type)
    return [transport.NAME for transport, *_ in kinds]


def _register(transport: type[_ArraysTransport], devices: list[str], data_type: Any) -> None:
    from ray.experimental.rdt import util

    known = util.transport_manager_info.get(transport.NAME)
    if known is None:
        register_tensor_transport(transport.NAME, devices, transport, data_type)
    elif known.transport_manager_class is not transport:
        raise ValueError(f"the transport {transport.NAME} is registered by {known}")


def _prepare() -> None:
    """Have Ray make what it keeps of a process's arrays.

    Without this it does so at the first need and without a lock, and in an actor that is given its
    first array two threads need it at once. If each makes one, what one receives is not what the
    other waits for. Actors import this module before, with the transport.
    """
    from ray._private import worker

    getattr(worker.global_worker, "rdt_manager", None)  # made where it is asked for


_prepare()
