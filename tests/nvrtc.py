"""NVIDIA's compiler NVRTC without a GPU: compiles CUDA for an architecture, reports what a kernel takes.

Needs one library: pip install nvidia-cuda-nvrtc-cu12 (90 MB).
"""

import ctypes
import functools
import re
import site
from pathlib import Path

# What a multiprocessor has: 32-bit registers, threads, KB of shared memory
MULTIPROCESSORS = {
    75: (65536, 1024, 64),
    80: (65536, 2048, 164),
    86: (65536, 1536, 100),
    89: (65536, 1536, 100),
    90: (65536, 2048, 228),
    100: (65536, 2048, 228),
    120: (65536, 1536, 100),
}


@functools.cache
def library():
    """NVRTC, or None where it is not installed."""
    folders = map(Path, [*site.getsitepackages(), site.getusersitepackages()])
    found = sorted(path for folder in folders for path in folder.glob("nvidia/*/lib/libnvrtc.so.1?"))
    return ctypes.CDLL(str(found[-1])) if found else None


def compile(nvrtc, code, options, architecture):
    """Return (compiled?, the compiler's messages)."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None)
    options = [*options, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
    array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return not failed, log.value.decode()


def usage(log):
    """{kernel: (registers per thread, bytes spilled, bytes of shared memory)}, read from the messages."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        patterns = r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes smem"
        numbers = (int((re.search(pattern, part) or [0, 0])[1]) for pattern in patterns)
        found[part.split("'")[0]] = tuple(numbers)
    return found
