"""Compiled kernels for the CPU: plain C++ behind a plain C border; no libtorch, no Python.h.

`api.h` is the border, `level.h` what an instruction set offers, `library.py` the calls from Python, `build.py` the
developer's build. The references in `llamakit.kernels` say what each kernel means.
"""
