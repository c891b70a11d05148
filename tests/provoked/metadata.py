"""Metadata that cannot be used."""

import time

from processes import DEADLINE, until

import nixl_connect as nc
from provoked.lab import provokes


@provokes("ArgumentTypeError: remote_metadata must be RdmaMetadata, not …")
def a_dict(lab):
    lab.read(lab.readable().metadata().model_dump())


@provokes("PairingError: … needs the metadata of a … operation, but this is of …")
def wrong_pair(lab):
    writable = lab.owner.create_writable_blocking(nc.Descriptor(bytearray(3)))
    lab.read(writable.metadata())


@provokes("PairingError: … needs the metadata of a … operation, but this is of …")
def no_kind(lab):
    lab.read(nc.RdmaMetadata.model_validate_json("{}"))


@provokes("MetadataError: remote_metadata has no descriptors")
def no_descriptors(lab):
    lab.altered(descriptors=[])


@provokes(
    "StateError: this metadata has been used: an operation serves one transfer, "
    "so ask the peer for a new one"
)
def used(lab):
    readable = lab.readable()
    lab.read(readable.metadata()).wait_for_completion_blocking(DEADLINE)
    lab.read(readable.metadata())


@provokes("MetadataError: RdmaMetadata: …")
def an_error_page(lab):
    nc.RdmaMetadata.model_validate_json("<html>")


@provokes("MetadataError: nixl_metadata …")
def cut_short(lab):
    lab.altered(nixl_metadata=lab.readable().metadata().nixl_metadata[:40])


@provokes("MetadataError: nixl_metadata …")
def over_the_limit(lab):
    lab.read(lab.readable().metadata(), connector=lab.make(max_metadata_bytes=10))


@provokes("MetadataError: the descriptors name memory that peer … did not register")
def other_memory(lab):
    lab.altered(descriptors=[{"device": "cpu", "ptr": 4096, "size": 3}])


@provokes("MetadataError: another agent has the name of this one, …; names must be unique")
def one_name(lab):
    owner, mover = lab.make("same"), lab.make("same")
    lab.read(lab.readable(connector=owner).metadata(), connector=mover)


@provokes("AuthenticationError: the metadata is not sealed, and this connector has keys")
def not_sealed(lab):
    lab.read(lab.readable().metadata(), connector=lab.make(keys=b"0123456789abcdef"))


@provokes("AuthenticationError: the metadata's seal is wrong: another key, or altered")
def another_key(lab):
    owner, mover = lab.make(keys=b"0123456789abcdef"), lab.make(keys=b"fedcba9876543210")
    lab.read(lab.readable(connector=owner).metadata(), connector=mover)


@provokes(
    "AuthenticationError: the metadata's seal expired … s ago; clocks of machines should agree"
)
def expired(lab):
    owner = lab.make(keys=b"0123456789abcdef", seal_lifetime=0)
    made = time.time()
    readable = lab.readable(connector=owner)
    until(lambda: time.time() > made + 1)  # expiry is in whole seconds
    lab.read(readable.metadata(), connector=owner)
