"""What editors and shells that use jedi offer, and what dir() and help() show."""

import inspect
import pydoc

import jedi
import pytest

import nixl_connect as nc

PROGRAM = """\
import nixl_connect as nc
from nixl_connect._native.operation import Operation

async def main():
    async with nc.Connector("worker") as connector:
        connector.{Connector}
        async with await connector.create_readable(nc.Descriptor(b"data")) as readable:
            readable.{ReadableOperation}
            metadata = readable.metadata()
            metadata.{RdmaMetadata}
            nc.RdmaMetadata.from_bytes(b"").{RdmaMetadata}
            nc.RdmaMetadata.model_validate({}).{RdmaMetadata}
        writable = await connector.create_writable(nc.Descriptor(bytearray(4)))
        writable.{WritableOperation}
        async with await connector.begin_read(metadata, nc.Descriptor(bytearray(4))) as read:
            read.{ReadOperation}
            read.remote.{Remote}
            read.connection.{Connection}
        async with await connector.begin_write(nc.Descriptor(b"data"), metadata) as write:
            write.{WriteOperation}
        async with await connector.prepare_read(metadata, nc.Descriptor(b"data")) as prepared:
            prepared.{PreparedRead}
        with await nc.HostPool(connector).acquire(10) as lease:
            lease.{Lease}
            lease.descriptor.{Descriptor}
        for report in connector.operations():
            report.{OperationReport}

def blocking(pool: nc.HostPool, native: Operation):
    with nc.Connector() as connector:
        connector.{Connector}
        with connector.create_readable_blocking(nc.Descriptor(b"data")) as readable:
            readable.{ReadableOperation}
    pool.{HostPool}
    native.{Operation}
"""
# Those whose instances a program meets.
CLASSES = [
    getattr(nc, name)
    for name in nc.__all__
    if isinstance(getattr(nc, name), type) and not issubclass(getattr(nc, name), BaseException)
]


def places():
    """Return the program without its marks, and what is marked: line, column and class."""
    lines, marks = PROGRAM.splitlines(), []
    for i, line in enumerate(lines):
        head, dot, tail = line.rpartition(".{")
        if dot:
            lines[i] = f"{head}."
            marks.append((i + 1, len(head) + 1, tail[:-1]))
    return lines, marks


LINES, MARKS = places()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(jedi.settings, "cache_directory", str(tmp_path_factory.getbasetemp()))


def script_of(text):
    return jedi.Script(text, environment=jedi.InterpreterEnvironment())


def completed(line, column):
    """Return what is offered at a place of the program, of which no other line is unfinished."""
    kept = [
        text.rstrip(".") if number != line and text.endswith(".") else text
        for number, text in enumerate(LINES, 1)
    ]
    script = script_of("\n".join(kept))
    return {item.name: item for item in script.complete(line, column)}


def public(cls):
    return {name for name in dir(cls) if name[0] != "_"}


def summary(value):
    """Return the first line of a docstring; Cython's have the signature before it."""
    paragraphs = inspect.getdoc(value).split("\n\n")
    return paragraphs["(self" in paragraphs[0]].splitlines()[0]


def class_of(name):
    if name != "Operation":
        return getattr(nc, name)
    from nixl_connect._native.operation import Operation

    return Operation


@pytest.mark.parametrize(("line", "column", "name"), MARKS)
def test_every_public_member_is_offered_and_explained(line, column, name):
    cls = class_of(name)
    items = completed(line, column)
    members = public(cls) - public(tuple)  # jedi leaves out those of a NamedTuple's base
    assert {item for item in items if item[0] != "_"} == members
    for member in members:
        value = inspect.getattr_static(cls, member)
        if not callable(getattr(value, "__func__", value)):
            continue
        (signature,) = items[member].get_signatures()
        names = list(inspect.signature(getattr(cls, member)).parameters)
        names = names[1:] if names[:1] == ["self"] else names
        assert [each.name for each in signature.params] == names
        assert all(": " in each.to_string() for each in signature.params)
        assert "->" in signature.to_string()
        assert summary(getattr(cls, member)) in items[member].docstring()


def test_the_module_offers_all_that_it_exports():
    script = script_of("import nixl_connect as nc\nnc.")
    items = {item.name: item for item in script.complete(2, 3)}
    assert items.keys() >= set(nc.__all__)
    for cls in CLASSES:
        assert cls.__doc__.splitlines()[0] in items[cls.__name__].docstring()


def test_arguments_are_shown():
    (signature,) = script_of("import nixl_connect as nc\nnc.Connector(").get_signatures(2, 13)
    assert [each.name for each in signature.params] == list(
        inspect.signature(nc.Connector).parameters
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_no_stray_names(cls):
    """All that dir() shows, but for what a tuple or an integer has, is explained."""
    for name in public(cls) - public(int) - public(tuple):
        value = inspect.getattr_static(cls, name)
        if name in getattr(cls, "__struct_fields__", ()) or name in getattr(cls, "_fields", ()):
            continue
        if isinstance(value, cls):  # of an enumeration
            continue
        described = isinstance(value, property | classmethod | staticmethod)
        assert described or type(value).__name__ in {"function", "cython_function_or_method"}, name
        assert inspect.getdoc(getattr(cls, name)), name


@pytest.mark.parametrize("cls", CLASSES)
def test_help(cls):
    text = pydoc.plain(pydoc.render_doc(cls))
    assert cls.__doc__.splitlines()[0] in text
    assert all(name in text for name in public(cls) - public(int) - public(tuple))
    assert "at 0x" not in text


def test_names_of_the_module():
    """What is no submodule is exported."""
    stray = {
        name
        for name, value in vars(nc).items()
        if name[0] != "_" and name not in nc.__all__ and not inspect.ismodule(value)
    }
    assert stray == set()


def test_dir_shows_what_programs_may_use():
    names = {name for name in dir(nc) if not name.startswith("__")}
    assert names - {"monitor", "prometheus"} == {*nc.__all__, "errors"} - {"__version__"}
    assert all(hasattr(nc, name) for name in dir(nc))
