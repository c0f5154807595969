"""SHELL: the event loop of a helper, and its memory: without what it does not use yet, or no more. Decides nothing."""

from __future__ import annotations

import ctypes
import gc
import mmap

import uvloop

_libc = ctypes.CDLL(None, use_errno=True)
_libc.malloc_trim.argtypes = [ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PAGE = mmap.PAGESIZE
_ZEROS = bytes(_PAGE)


def new_event_loop() -> uvloop.Loop:
    """Return uvloop's loop; of the 250 KB buffer for reading that it clears when it is made, nothing stays resident.

    A page of zeros that is given back to the kernel reads as zeros again, so it does not matter what a page is for.
    A helper that is sent small requests then never has most of them.
    """
    loop = uvloop.new_event_loop()
    start = -(-id(loop) // _PAGE) * _PAGE  # CPython: the address of the object
    pages = (id(loop) + type(loop).__basicsize__ - start) // _PAGE
    content = ctypes.string_at(start, pages * _PAGE)
    for offset in range(0, pages * _PAGE, _PAGE):
        if content[offset : offset + _PAGE] == _ZEROS:
            _libc.madvise(start + offset, _PAGE, mmap.MADV_DONTNEED)  # where it fails, the page stays as it is
    return loop


def give_back_memory() -> None:
    """Return to the kernel what connections that are gone have left behind: cycles, and holes between what lives on.

    Some milliseconds, after which a helper that had hundreds of connections is as small as one that never had.
    """
    gc.collect()
    _libc.malloc_trim(0)
