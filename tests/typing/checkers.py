"""What pyright makes of the programs in the folder beside this file, and of the package.

Run by "make check", and not by "make test": pyright is large.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nixl_connect as nc

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM = """\
import nixl_connect as nc

async def main() -> None:
    async with nc.Connector("worker") as connector:
        connector.{Connector}
        async with await connector.create_readable(nc.Descriptor(b"data")) as readable:
            readable.{ReadableOperation}
            metadata = readable.metadata()
            metadata.{RdmaMetadata}
        async with await connector.begin_read(metadata, nc.Descriptor(bytearray(4))) as read:
            read.{ReadOperation}
        async with await connector.prepare_read(metadata, nc.Descriptor(bytearray(4))) as prepared:
            prepared.{PreparedRead}
        with await nc.HostPool(connector).acquire(10) as lease:
            lease.{Lease}
            lease.descriptor.{Descriptor}
"""


def basedpyright(*arguments, cwd):
    """Run it, and return its exit status and its report."""
    tool = Path(sys.executable).with_name("basedpyright")
    done = subprocess.run(
        [tool, *arguments, "--outputjson"],
        check=False,
        cwd=cwd,
        # It asks the first Python of the path; with --verifytypes it does not heed --pythonpath.
        env=os.environ | {"PATH": f"{tool.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, json.loads(done.stdout)


def told(diagnostics):
    """Return what pyright says, as lines."""
    return [
        f"{item.get('file', '')}:{item.get('range', {}).get('start', {}).get('line', -1) + 1}: "
        f"{item['message']}"
        for item in diagnostics
    ]


@pytest.mark.timeout(300)
def test_programs_of_users():
    status, report = basedpyright("--project", str(PROGRAMS), cwd=PROGRAMS)
    assert told(report["generalDiagnostics"]) == []
    assert status == 0
    assert report["summary"]["filesAnalyzed"] == len(list(PROGRAMS.glob("*.py")))


@pytest.mark.timeout(300)
def test_the_types_of_the_package_are_complete(tmp_path):
    _, report = basedpyright("--verifytypes", "nixl_connect", "--ignoreexternal", cwd=tmp_path)
    complete = report["typeCompleteness"]
    assert Path(complete["packageRootDirectory"]) == Path(nc.__file__).parent
    assert complete["pyTypedPath"]
    bad = [item for symbol in complete["symbols"] for item in symbol["diagnostics"]]
    assert told(item for item in bad if item["severity"] == "error") == []
    assert complete["completenessScore"] == 1


class Server:
    """A language server, as an editor drives it."""

    def __init__(self, folder):
        tool = Path(sys.executable).with_name("basedpyright-langserver")
        self.process = subprocess.Popen(
            [tool, "--stdio"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.number = 0

    def send(self, **message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def receive(self):
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the server has ended"
        return json.loads(self.process.stdout.read(length))

    def ask(self, method, **params):
        """Return the answer to a request, and answer those of the server meanwhile."""
        self.number += 1
        self.send(id=self.number, method=method, params=params)
        while True:
            message = self.receive()
            if "method" not in message and message["id"] == self.number:
                assert "error" not in message, message
                return message["result"]
            if "id" in message and message["method"] == "workspace/configuration":
                settings = {"pythonPath": sys.executable}
                self.send(id=message["id"], result=[settings for _ in message["params"]["items"]])
            elif "id" in message and "method" in message:
                self.send(id=message["id"], result=None)

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


def members(name):
    return {member for member in dir(getattr(nc, name)) if member[0] != "_"}


@pytest.mark.timeout(120)
def test_completions_of_a_language_server(server, tmp_path):
    root = tmp_path.as_uri()
    server.ask(
        "initialize",
        processId=os.getpid(),
        rootUri=root,
        workspaceFolders=[{"uri": root, "name": "program"}],
        capabilities={
            "workspace": {"configuration": True, "workspaceFolders": True},
            "textDocument": {
                "completion": {"completionItem": {"documentationFormat": ["plaintext"]}}
            },
        },
    )
    server.send(method="initialized", params={})
    uri = (tmp_path / "program.py").as_uri()
    lines = PROGRAM.splitlines()
    places = {}
    for i, line in enumerate(lines):
        head, brace, tail = line.partition("{")
        if brace:
            places[tail[:-1]] = {"line": i, "character": len(head)}
            lines[i] = head
    document = {"uri": uri, "languageId": "python", "version": 1, "text": "\n".join(lines)}
    server.send(method="textDocument/didOpen", params={"textDocument": document})
    assert len(places) == 7
    for name, place in places.items():
        answer = server.ask("textDocument/completion", textDocument={"uri": uri}, position=place)
        items = {item["label"]: item for item in answer["items"]}
        assert {label for label in items if label[0] != "_"} == members(name)
    item = server.ask("completionItem/resolve", **items["slice"])
    said = item["documentation"]["value"]
    assert all(part in said for part in ("offset: int", "length: int", "-> Descriptor"))
    assert nc.Descriptor.slice.__doc__.splitlines()[0] in said
