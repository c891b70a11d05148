"""Compile the Cython extension modules; everything else is in pyproject.toml.

Every ``nixl_connect/_native/*.pyx`` becomes one C extension module. The compiler directives stand
here and nowhere else, so that no module can quietly differ from its neighbours.

``NIXL_CONNECT_DEBUG=1`` in the environment makes a debug build: no optimisation, line tracing, and
the C macro ``NIXL_CONNECT_DEBUG`` defined as 1 (0 otherwise). Each kind of build has directories of
its own under ``build/``, so that changing from one to the other never mixes their files.
``NIXL_CONNECT_SANITIZE=address`` or ``thread`` builds with GCC's sanitizers, whose library then has
to be preloaded: ``make test SANITIZE=address`` does it. With ``fuzzer`` Clang adds what libFuzzer
looks at: ``make fuzz-guided SANITIZE=fuzzer``.
"""

import os
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("NIXL_CONNECT_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("NIXL_CONNECT_SANITIZE", "")
BUILD = f"build/{SANITIZE or ('debug' if DEBUG else 'release')}"
NATIVE = Path("nixl_connect/_native")
# Cython does not notice its own upgrade, so its version is part of the name.
GENERATED = Path(BUILD, f"cython-{Cython.__version__}")

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
    "profile": False,
    "linetrace": DEBUG,
}
MACROS = [("NIXL_CONNECT_DEBUG", "1" if DEBUG else "0")]
if DEBUG:
    # Not CYTHON_TRACE_NOGIL: it makes functions that run without the GIL take it.
    MACROS.append(("CYTHON_TRACE", "1"))
# Without debug information, which CPython's own flags ask for, a wheel is a quarter of the size and
# does not depend on the folder it was built in.
OPTIMISATION = ["-O0", "-g"] if DEBUG else ["-O2", "-g0"]
SANITIZERS = {
    "": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
    "fuzzer": ["-fsanitize=fuzzer-no-link,address"],
}[SANITIZE]
if SANITIZERS:
    OPTIMISATION = ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS]


def native_extension(source: Path) -> Extension:
    """Return the extension module of one ``.pyx`` file."""
    return Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        language="c",
        define_macros=MACROS,
        libraries=["dl"],
        # What an older glibc lacks has to fail here, not where the module is loaded.
        extra_compile_args=[
            *("-std=gnu11", "-pthread", "-Werror=implicit-function-declaration"),
            *OPTIMISATION,
        ],
        extra_link_args=["-pthread", *SANITIZERS],
    )


class BuildExt(build_ext):
    """Translate to C as late as possible, and use every core.

    Doing it here, not at import, keeps generated C out of source distributions and makes a query
    for metadata cheap.
    """

    def finalize_options(self) -> None:
        """Compile in parallel unless told otherwise."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count() or 1

    def build_extensions(self) -> None:
        """Translate what changed, compile it, and drop what has no source any more."""
        # Directives are not among the dependencies that Cython tracks.
        changed = Path("setup.py").stat().st_mtime
        stale = any(path.stat().st_mtime < changed for path in GENERATED.rglob("*.c"))
        translated = cythonize(
            self.extensions,
            build_dir=str(GENERATED),
            compiler_directives=DIRECTIVES,
            nthreads=int(self.parallel),
            force=bool(self.force) or stale,
        )
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        # A module whose source is gone must not get into the wheel.
        modules = {Path(self.build_lib, self.get_ext_filename(e.name)) for e in self.extensions}
        for path in set(Path(self.build_lib).rglob("*.so")) - modules:
            path.unlink()
        super().build_extensions()


if __name__ == "__main__":
    setup(
        ext_modules=[native_extension(source) for source in sorted(NATIVE.glob("*.pyx"))],
        cmdclass={"build_ext": BuildExt},
        options={"build": {"build_base": BUILD}},
    )
