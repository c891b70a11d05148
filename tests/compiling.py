"""Libraries in C that tests put in the place of others."""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path


def build(sources: list[Path], target: Path, *options: str) -> Path:
    """Compile a shared library, which is known by its file's name; warnings are errors."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    subprocess.run(
        [
            *compiler,
            *("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            *(f"-Wl,-soname,{target.name}", "-o", str(target), *map(str, sources)),
            *("-ldl", "-pthread", *options),
        ],
        check=True,
        timeout=60,
    )
    return target
