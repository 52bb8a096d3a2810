# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels' machine code, compiled by NVRTC when first needed and kept on disk. Needs no GPU, no driver."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from potr.errors import BackendUnavailable, PotrError
from potr.files import user_cache, write_atomic

SOURCES = Path(__file__).parents[1] / "native" / "cuda"
STANDARD = "c++17"
OPTIONS: Mapping[str, Mapping[str, bool]] = {
    # Without contraction to fused multiply-adds: a splat's footprint and the choices of the SH solver then come out as
    # they do on the CPU, operation by operation.
    "project": {"fma": False},
    "sh_solver": {"fma": False},
    "blend": {"ftz": True},
    "gather": {"ftz": True},
}
_LAYOUT = b"potr cubin 1"  # of the key and of a cached file: SHA-256 of the cubin, then the cubin
_DIGEST_BYTES = 32


def cache_folder() -> Path:
    """Where cubins are kept: potr/cubins in the user's cache. Anything in it may be deleted at any time."""
    return user_cache() / "cubins"


def sources(folder: Path = SOURCES) -> list[str]:
    """Stems of the .cu files."""
    return sorted(path.stem for path in folder.glob("*.cu"))


def nvrtc_version() -> tuple[int, int]:
    """Version of the NVRTC that is installed.

    Raises:
        ImportError: a package of the extra [cuda] is missing.
        RuntimeError: there is no NVRTC library.
    """
    from cuda.bindings import nvrtc

    status, major, minor = nvrtc.nvrtcVersion()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"nvrtcVersion: {status.name}")
    return int(major), int(minor)


def supported_architectures() -> list[int]:
    """What NVRTC compiles for: 80 for sm_80. Raises like ``nvrtc_version``."""
    from cuda.bindings import nvrtc

    status, architectures = nvrtc.nvrtcGetSupportedArchs()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"nvrtcGetSupportedArchs: {status.name}")
    return sorted(int(a) for a in architectures)


def architecture(capability: tuple[int, int], supported: list[int]) -> str | None:
    """The best "sm_NN" to compile for on a GPU, None if there is none.

    A cubin runs on GPUs of its own major compute capability and of an equal or higher minor one (CUDA C++ programming
    guide, "binary compatibility").

    Args:
        capability: (major, minor) of the GPU.
        supported: what NVRTC compiles for.
    """
    major, minor = capability
    fitting = [a for a in supported if a // 10 == major and a % 10 <= minor]
    return f"sm_{max(fitting)}" if fitting else None


def cubin(source: str, arch: str, *, folder: Path = SOURCES, cache: Path | None = None) -> bytes:
    """A kernel source's machine code, from the cache if it is there and whole.

    A cache that cannot be read or written costs the compilation (some tenths of a second), nothing else.

    Args:
        source: stem of the .cu file.
        arch: "sm_90".
        folder: holds the .cu file; headers come from it and from the folder above.
        cache: keeps what was compiled; by default ``cache_folder()``.

    Raises:
        BackendUnavailable: the source is missing or does not compile; with NVRTC's messages.
        ImportError, RuntimeError: like ``nvrtc_version``.
    """
    path = folder / f"{source}.cu"
    try:
        key = _key(path, arch)
    except OSError as error:
        raise BackendUnavailable(
            f"cuda: {error.filename or path}: cannot read a kernel's source ({error.strerror}); install potr again"
        ) from error
    try:
        kept = (cache or cache_folder()) / f"{source}-{arch}-{key}.cubin"
    except RuntimeError:  # no home folder
        return compile_cubin(path, arch)[0]
    code = _read(kept)
    if code is None:
        code, _ = compile_cubin(path, arch)
        with contextlib.suppress(PotrError):  # where it cannot be kept it is compiled anew next time
            write_atomic(kept, hashlib.sha256(code).digest() + code, overwrite=True)
    return code


def compile_cubin(path: Path, arch: str, *, ptxas: str | None = None) -> tuple[bytes, str]:
    """Compile a .cu file with the options of its name, past the cache.

    Args:
        path: the file.
        arch: "sm_90".
        ptxas: an option for ptxas; "-v" writes registers and spills into the messages.

    Returns:
        The cubin and the compiler's messages ("" if it has nothing to say).

    Raises:
        BackendUnavailable: it does not compile.
        ImportError, RuntimeError: like ``nvrtc_version``.
    """
    from cuda.core import Program, ProgramOptions

    version = nvrtc_version()
    options = ProgramOptions(
        name=str(path),
        arch=arch,
        std=STANDARD,
        include_path=[str(path.parent), str(path.parent.parent)],
        ptxas_options=ptxas,
        **OPTIONS.get(path.stem, {}),
    )
    messages = io.StringIO()
    try:
        code = Program(path.read_text(encoding="utf-8"), "c++", options).compile("cubin", logs=messages).code
    except OSError as error:
        raise BackendUnavailable(f"cuda: {path}: cannot read: {error.strerror}") from error
    except Exception as error:  # NVRTCError, which cuda-core does not export
        if "NVRTC" not in type(error).__name__:
            raise
        head, _, log = str(error).partition("compilation log:")
        raise BackendUnavailable(
            f"cuda: {path.name} does not compile for {arch} with NVRTC {version[0]}.{version[1]}:\n"
            f"{(log or head).strip()}"
        ) from error
    return bytes(code), messages.getvalue().strip()


def _key(path: Path, arch: str) -> str:
    """SHA-256 of all that decides the cubin: the source, every header it may include, options and compiler."""
    files = [path, *sorted(path.parent.glob("*.h*")), *sorted(path.parent.parent.glob("*.h*"))]
    options = sorted(OPTIONS.get(path.stem, {}).items())
    parts = [_LAYOUT, repr((path.name, arch, STANDARD, options, nvrtc_version())).encode()]
    parts += [part for file in files for part in (file.name.encode(), file.read_bytes())]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _read(kept: Path) -> bytes | None:
    """A cached cubin; None if it is not there, cannot be read or is not what was written."""
    try:
        content = kept.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None
