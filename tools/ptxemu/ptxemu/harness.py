"""Direct use, without the emulated driver: compile a numba-cuda kernel to PTX (or take PTX) and run it
over numpy arrays in place."""

import ctypes
import hashlib
import os
import struct

import numpy as np

from .build import build_dir
from .compile import OPTIMISATION, compile_ptx

RACE, POISON, COOPERATIVE, UNINIT = 1, 2, 4, 8  # EMU_* in emurt.h
ORDERS = {"forward": 0, "reverse": 1, "random": 2}
u32, ptr = ctypes.c_uint32, ctypes.c_void_p


class PtxError(RuntimeError):
    """A kernel fault, or PTX that cannot be translated."""


class LaunchInfo(ctypes.Structure):  # EmuLaunch in emurt.h
    _fields_ = [
        ("fn", ptr),
        ("name", ctypes.c_char_p),
        ("params", ptr),
        ("param_off", ptr),
        ("sites", ptr),
        ("seed", ctypes.c_uint64),
        ("nparams", u32),
        ("grid", u32 * 3),
        ("block", u32 * 3),
        ("smem_static", u32),
        ("smem_dyn", u32),
        ("stack", u32),
        ("fibers", u32),
        ("threads", u32),
        ("order", u32),
        ("flags", u32),
    ]


def _runtime():
    rt = ctypes.CDLL(os.path.join(build_dir(), "libptxemu.so"))
    rt.emu_range_add.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p]
    rt.emu_range_del.argtypes = [ctypes.c_uint64]
    rt.emu_launch.argtypes = [ctypes.POINTER(LaunchInfo), ctypes.c_char_p, u32]
    return rt


def load_meta(text):
    """The emu_meta lines written by translate.Translator.meta"""
    meta = {"entries": {}, "globals": {}, "unsupported": []}
    for line in text.splitlines():
        kind, rest = line.split(" ", 1)
        f = rest.split()
        if kind == "module":
            meta["shared"], meta["const"] = map(int, f)
        elif kind == "entry":
            psize, fibers, stack, local, maxthreads, regs, n = map(int, f[2:9])
            params = [tuple(map(int, x.split(":"))) for x in f[9 : 9 + n]]
            meta["entries"][f[0]] = dict(
                c=f[1],
                psize=psize,
                fibers=fibers,
                stack=stack,
                local=local,
                maxthreads=maxthreads,
                regs=regs,
                params=params,
            )
        elif kind == "global":
            meta["globals"][f[0]] = (f[1], int(f[2]))
        else:
            meta["unsupported"].append(rest)
    return meta


class PtxModule:
    """One or more PTX texts.  check: bounds and alignment; race: shared-memory race detector."""

    def __init__(self, texts, check=True, race=False, strict=True):
        texts = [texts] if isinstance(texts, str) else list(texts)
        key = hashlib.sha256(repr((texts, check, race, OPTIMISATION)).encode()).hexdigest()[:32]
        so = os.path.join(build_dir(), "modules", f"py-{key}.so")
        if not os.path.exists(so):
            compile_ptx(build_dir(), texts, so, check, race)
        self.rt, self.lib, self.race = _runtime(), ctypes.CDLL(so), race
        self.meta = load_meta(
            ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(self.lib, "emu_meta"))).decode()
        )
        if self.meta["unsupported"] and strict:
            raise PtxError("PTX not supported:\n  " + "\n  ".join(self.meta["unsupported"]))
        self.lib.emu_modinit()
        self.sites = ctypes.addressof(ctypes.c_char.in_dll(self.lib, "emu_sites"))
        for name in self.meta["globals"]:
            self.rt.emu_range_add(*self.global_ptr(name), f"global variable {name}".encode())

    def global_ptr(self, name):
        """(address, size) of a module variable"""
        c, size = self.meta["globals"][name]
        return ctypes.addressof(ctypes.c_char.in_dll(self.lib, c)), size

    @property
    def entries(self):
        return list(self.meta["entries"])

    def run(
        self,
        entry,
        grid,
        block,
        values,
        shared_bytes=0,
        threads=None,
        order="forward",
        seed=0,
        poison=True,
        ranges=(),
        cooperative=False,
        uninit=False,
        label=None,
    ):
        """values: one bytes/int/float per PTX parameter; ranges: (address, size, label) the kernel may touch"""
        e = self.meta["entries"][entry]
        if len(values) != len(e["params"]):
            raise PtxError(f"{len(values)} arguments for {len(e['params'])} parameters")
        buf = bytearray(e["psize"] + 16)
        for v, (off, size) in zip(values, e["params"], strict=True):
            if isinstance(v, float):
                v = struct.pack("<f" if size == 4 else "<d", v)
            elif not isinstance(v, (bytes, bytearray)):
                v = (int(v) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
            buf[off : off + len(v)] = v
        params = (ctypes.c_char * len(buf)).from_buffer(buf)
        offsets = (u32 * len(e["params"]))(*[off for off, _ in e["params"]])
        flags = RACE * self.race | POISON * poison | COOPERATIVE * cooperative | UNINIT * uninit
        info = LaunchInfo(
            fn=ctypes.cast(self.lib[e["c"]], ptr),
            name=entry.encode(),
            params=ctypes.addressof(params),
            param_off=ctypes.addressof(offsets),
            sites=self.sites,
            seed=seed,
            nparams=len(offsets),
            grid=(u32 * 3)(*triple(grid)),
            block=(u32 * 3)(*triple(block)),
            smem_static=self.meta["shared"],
            smem_dyn=shared_bytes,
            stack=e["stack"],
            fibers=e["fibers"],
            threads=threads or int(os.environ.get("PTXEMU_THREADS", "1")),
            order=ORDERS.get(order, order),
            flags=flags,
        )
        msg = ctypes.create_string_buffer(4096)
        for lo, n, what in ranges:
            self.rt.emu_range_add(lo, n, what.encode())
        try:
            failed = self.rt.emu_launch(info, msg, len(msg))
        finally:
            for lo, _, _ in ranges:
                self.rt.emu_range_del(lo)
        if failed:
            raise PtxError(f"kernel {label or entry}: {msg.value.decode(errors='replace')}")


def triple(x):
    x = tuple(x) if hasattr(x, "__len__") else (int(x),)
    return x + (1,) * (3 - len(x))


def flatten(ty, v, out, ranges, label):
    """Append the PTX parameters that numba passes for value v of numba type ty."""
    kind = type(ty).__name__
    if kind == "Array":
        addr = v.ctypes.data
        if v.size:
            reach = [(n - 1) * s for n, s in zip(v.shape, v.strides, strict=True)]
            lo = addr + sum(min(0, r) for r in reach)
            hi = addr + sum(max(0, r) for r in reach) + v.itemsize
            ranges.append((lo, hi - lo, label))
        out += [0, 0, v.size, v.itemsize, addr, *v.shape, *v.strides]
    elif kind in ("Integer", "IntegerLiteral"):
        out.append(int(v))
    elif kind == "Boolean":
        out.append(int(bool(v)))
    elif kind == "Float":
        out.append(np.dtype(f"f{ty.bitwidth // 8}").type(v).tobytes())
    elif kind == "Complex":
        part = np.float32 if ty.bitwidth == 64 else np.float64
        out += [part(v.real).tobytes(), part(v.imag).tobytes()]
    elif kind in ("UniTuple", "Tuple", "NamedTuple", "NamedUniTuple"):
        types = [ty.dtype] * ty.count if "Uni" in kind else ty.types
        for t, x in zip(types, v, strict=True):
            flatten(t, x, out, ranges, label)
    elif kind == "Record":
        a = np.asarray(v)
        out.append(a.ctypes.data)
        ranges.append((a.ctypes.data, a.nbytes, label))
    elif kind in ("NPDatetime", "NPTimedelta"):
        out.append(int(np.asarray(v).view("i8")))
    elif kind not in ("NoneType", "Omitted", "Dummy"):
        raise TypeError(f"argument type {ty!r}")


def compile_kernel(fn, signature=None, args=(), cc=(8, 0), fastmath=False, **options):
    """(ptx, signature) of a numba CUDA kernel, given as a Python function or @cuda.jit object"""
    from numba import cuda, types
    from numba.core import sigutils
    from numba.cuda.typing.typeof import Purpose, typeof

    fn = getattr(fn, "py_func", fn)
    if signature is None:
        signature = types.void(*[typeof(a, Purpose.argument) for a in args])
    elif isinstance(signature, str):
        signature = types.void(*sigutils.normalize_signature(signature)[0])
    elif isinstance(signature, (tuple, list)):
        signature = types.void(*signature)
    ptx, _ = cuda.compile(
        fn, signature, cc=cc, abi="numba", device=False, fastmath=fastmath, output="ptx", **options
    )
    return ptx if isinstance(ptx, str) else ptx.decode(), signature


_modules = {}


def launch(
    fn,
    signature,
    grid,
    block,
    *args,
    cc=(8, 0),
    fastmath=False,
    check=True,
    race=False,
    link_ptx=(),
    options=None,
    **run_options,
):
    """Compile kernel fn for compute capability cc and run it over numpy arrays, in place.

    signature: None to take it from the arguments.  run_options: shared_bytes, order ('forward', 'reverse',
    'random': schedule of blocks, warps and lanes), seed, threads, poison, cooperative, uninit."""

    def key_of(a):
        if isinstance(a, np.ndarray):
            return a.dtype, a.ndim, a.flags.c_contiguous, a.flags.f_contiguous, a.flags.writeable
        return type(a)

    key = (
        getattr(fn, "py_func", fn),
        str(signature) if signature is not None else tuple(map(key_of, args)),
        cc,
        fastmath,
        check,
        race,
        tuple(link_ptx),
        repr(options),
    )
    if key not in _modules:
        ptx, sig = compile_kernel(fn, signature, args, cc, fastmath, **(options or {}))
        _modules[key] = PtxModule([ptx, *link_ptx], check, race), sig
    module, sig = _modules[key]
    if len(sig.args) != len(args):
        raise TypeError(f"{len(args)} arguments for {sig}")
    values, ranges = [], []
    for i, (t, a) in enumerate(zip(sig.args, args, strict=True)):
        flatten(t, a, values, ranges, f"argument {i}")
    name = getattr(fn, "py_func", fn).__qualname__
    module.run(module.entries[0], grid, block, values, ranges=ranges, label=name, **run_options)
    return module


def last_fault():
    """Text of the latest kernel fault in the emulated driver of this process, or ''"""
    f = ctypes.CDLL("libcuda.so.1").ptxemu_last_fault
    f.restype = ctypes.c_char_p
    return f().decode(errors="replace")
