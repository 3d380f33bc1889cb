"""Kernels run directly over numpy arrays (ptxemu.launch and hand-written PTX)."""

import math

import numpy as np
from numba import cuda, float32, int32
from numba.cuda import libdevice
from ptxemu import PtxError, PtxModule, launch

rng = np.random.default_rng(0)
HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"


def f32(*shape):
    return rng.standard_normal(shape).astype("f4")


def fails(fragment, fn, *args, **kw):
    """The launch must fault with a message containing fragment."""
    try:
        launch(fn, None, *args, **kw)
    except PtxError as e:
        assert fragment in str(e), str(e)
        return str(e)
    raise AssertionError(f"no fault ({fragment})")


def run_ptx(body, params, grid, block, *args, regs="", shared="", **kw):
    """Run a kernel k given as PTX statements; numpy arrays become pointers P0, P1, ... in %rd0, %rd1, ..."""
    decl = ", ".join(f".param .u64 p{i}" for i in range(params))
    loads = "".join(f"ld.param.u64 %rd{i}, [p{i}];\n" for i in range(params))
    text = (
        f"{HEADER}.visible .entry k({decl})\n{{ .reg .b32 %r<64>; .reg .b64 %rd<16>; .reg .f32 %f<32>; "
        f".reg .f64 %fd<32>; .reg .b16 %h<16>; .reg .pred %p<4>; {regs} {shared}\n{loads}{body}\nret; }}"
    )
    ranges = [(a.ctypes.data, a.nbytes, f"argument {i}") for i, a in enumerate(args)]
    PtxModule(text).run("k", grid, block, [a.ctypes.data for a in args], ranges=ranges, **kw)


# ---- whole kernels
def vadd(a, b, c):
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


def test_vector_add():
    a, b = f32(2, 100003)
    c = np.zeros_like(a)
    for kw in ({}, {"order": "reverse"}, {"order": "random", "seed": 3}, {"threads": 2}, {"check": False}):
        c[:] = 0
        launch(vadd, None, 391, 256, a, b, c, **kw)
        assert (c == a + b).all()


def matmul(A, B, C):
    sA = cuda.shared.array((16, 16), float32)
    sB = cuda.shared.array((16, 16), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    r, c = cuda.blockIdx.y * 16 + y, cuda.blockIdx.x * 16 + x
    acc = float32(0)
    for t in range(A.shape[1] // 16):
        sA[y, x] = A[r, t * 16 + x]
        sB[y, x] = B[t * 16 + y, c]
        cuda.syncthreads()
        for k in range(16):
            acc += sA[y, k] * sB[k, x]
        cuda.syncthreads()
    C[r, c] = acc


def matmul_missing_barrier(A, B, C):
    sA = cuda.shared.array((16, 16), float32)
    sB = cuda.shared.array((16, 16), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    r, c = cuda.blockIdx.y * 16 + y, cuda.blockIdx.x * 16 + x
    acc = float32(0)
    for t in range(A.shape[1] // 16):
        sA[y, x] = A[r, t * 16 + x]
        sB[y, x] = B[t * 16 + y, c]
        cuda.syncthreads()
        for k in range(16):
            acc += sA[y, k] * sB[k, x]
    C[r, c] = acc


def test_tiled_matmul():
    A, B = f32(2, 64, 64)
    for kw in ({}, {"race": True}, {"order": "random", "seed": 5}, {"order": "reverse"}, {"threads": 2}):
        C = np.zeros((64, 64), "f4")
        launch(matmul, None, (4, 4), (16, 16), A, B, C, **kw)
        assert np.abs(C - A @ B).max() < 1e-4


def test_removed_barrier_is_a_race():
    A, B = f32(2, 64, 64)
    for order in ("forward", "reverse", "random"):
        fails(
            "shared-memory race",
            matmul_missing_barrier,
            (4, 4),
            (16, 16),
            A,
            B,
            np.zeros((64, 64), "f4"),
            race=True,
            order=order,
        )


def warp_sum(a, o):
    v = a[cuda.grid(1)]
    for s in (16, 8, 4, 2, 1):
        v += cuda.shfl_down_sync(0xFFFFFFFF, v, s)
    if cuda.threadIdx.x % 32 == 0:
        cuda.atomic.add(o, 0, v)


def shuffles(a, o):
    t = cuda.threadIdx.x
    o[0, t] = cuda.shfl_xor_sync(0xFFFFFFFF, a[t], 5)
    o[1, t] = cuda.shfl_up_sync(0xFFFFFFFF, a[t], 3)
    o[2, t] = cuda.shfl_sync(0xFFFFFFFF, a[t], 7)
    o[3, t] = cuda.ballot_sync(0xFFFFFFFF, a[t] & 1)
    o[4, t] = cuda.match_any_sync(0xFFFFFFFF, a[t] & 3)
    o[5, t] = cuda.syncthreads_count(a[t] & 1)


def test_shuffles():
    a, o = rng.integers(0, 100, 4096).astype("f4"), np.zeros(1, "f4")
    launch(warp_sum, None, 16, 256, a, o)
    assert o[0] == a.sum()
    a, o, t = rng.integers(0, 1000, 32).astype("i4"), np.zeros((6, 32), "i4"), np.arange(32)
    launch(shuffles, None, 1, 32, a, o)
    want = [
        a[t ^ 5],
        a[np.where(t >= 3, t - 3, t)],
        a[[7] * 32],
        [sum(int(x & 1) << i for i, x in enumerate(a))] * 32,
        [sum(int((x ^ y) & 3 == 0) << i for i, x in enumerate(a)) for y in a],
        [(a & 1).sum()] * 32,
    ]
    assert (o.view("u4") == np.array(want, "i8").astype("u4")).all()


def histogram(a, h, s):
    i = cuda.grid(1)
    if i < a.size:
        cuda.atomic.add(h, a[i], 1)
        cuda.atomic.max(s, 0, a[i])
        cuda.atomic.cas(s, 1, 0, a[i] + 1)


def test_atomics():
    a, h, s = rng.integers(0, 50, 10000).astype("i4"), np.zeros(50, "i4"), np.zeros(2, "i4")
    launch(histogram, None, 40, 256, a, h, s, threads=2)
    assert (h == np.bincount(a, minlength=50)).all() and s[0] == a.max() and s[1] > 0


def adam(p, g, m, v, lr, b1, b2, eps):
    i = cuda.grid(1)
    if i < p.size:
        m[i] = b1 * m[i] + (float32(1) - b1) * g[i]
        v[i] = b2 * v[i] + (float32(1) - b2) * g[i] * g[i]
        p[i] -= lr * m[i] / (math.sqrt(v[i]) + eps)


def test_adam():
    p, g, m, v = f32(4, 5000)
    v = np.abs(v)
    lr, b1, b2, eps = map(np.float32, (1e-3, 0.9, 0.999, 1e-8))
    M = b1 * m.astype("f8") + (1 - b1) * g
    V = b2 * v.astype("f8") + (1 - b2) * g.astype("f8") ** 2
    P = p - lr * M / (np.sqrt(V) + eps)
    launch(adam, None, 20, 256, p, g, m, v, lr, b1, b2, eps)
    assert max(np.abs(p - P).max(), np.abs(m - M).max(), np.abs(v - V).max()) < 2e-6


def functions(x, o):
    i = cuda.grid(1)
    if i < x.size:
        v = x[i]
        o[0, i] = libdevice.expf(v)
        o[1, i] = libdevice.tanhf(v)
        o[2, i] = libdevice.logf(libdevice.fabsf(v) + float32(0.1))
        o[3, i] = libdevice.erff(v)
        o[4, i] = libdevice.sinf(v)
        o[5, i] = libdevice.powf(libdevice.fabsf(v), float32(1.7))
        o[6, i] = libdevice.rsqrtf(libdevice.fabsf(v) + float32(0.1))


def test_libdevice_ulps():
    x = f32(20000) * 3
    o, X = np.zeros((7, x.size), "f4"), x.astype("f8")
    shifted = (np.abs(x) + np.float32(0.1)).astype("f8")
    want = [
        np.exp(X),
        np.tanh(X),
        np.log(shifted),
        np.array([math.erf(v) for v in X]),
        np.sin(X),
        np.abs(X) ** np.float64(np.float32(1.7)),
        1 / np.sqrt(shifted),
    ]
    launch(functions, None, 79, 256, x, o)
    for got, ref, limit in zip(o, want, (2, 2, 2, 2, 2, 4, 2), strict=True):
        ulp = np.abs(got - ref) / np.spacing(np.abs(ref).astype("f4"))
        assert ulp[np.abs(ref) > 1e-6].max() <= limit, ulp.max()


def last_block(a, part, count, out):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    v = a[cuda.grid(1)]
    for k in (16, 8, 4, 2, 1):
        v += cuda.shfl_down_sync(0xFFFFFFFF, v, k)
    if t == 0:
        part[cuda.blockIdx.x] = v
        cuda.threadfence()
        s[0] = cuda.atomic.add(count, 0, 1)
    cuda.syncthreads()
    if s[0] == cuda.gridDim.x - 1 and t == 0:
        total = float32(0)
        for i in range(cuda.gridDim.x):
            total += part[i]
        out[0] = total


def test_last_block_done():
    a = rng.integers(0, 9, 32 * 40).astype("f4")
    for order in ("forward", "reverse", "random"):
        out = np.zeros(1, "f4")
        launch(
            last_block,
            None,
            40,
            32,
            a,
            np.zeros(40, "f4"),
            np.zeros(1, "i4"),
            out,
            order=order,
            seed=9,
            threads=2,
        )
        assert out[0] == a.sum()


# ---- tensor cores.  Fragment layouts as in the PTX manual, per 32-bit register.
MMA = """mov.u32 %r0, %tid.x; mul.wide.u32 %rd4, %r0, 4;
add.u64 %rd0, %rd0, %rd4; add.u64 %rd1, %rd1, %rd4; add.u64 %rd2, %rd2, %rd4; add.u64 %rd3, %rd3, %rd4;
"""


def mma(op, fa, fb, fc, n_out, dtype="u4"):
    """Run mma `op` on per-lane registers fa[i][lane], fb, fc (as u32); returns out[i][lane]."""
    out = np.zeros((n_out, 32), "u4")
    loads, names = "", []
    for base, regs, frag in ((10, "rd0", fa), (20, "rd1", fb), (30, "rd2", fc)):
        loads += "".join(f"ld.global.u32 %r{base + i}, [%{regs}+{128 * i}];\n" for i in range(len(frag)))
        names.append("{" + ", ".join(f"%r{base + i}" for i in range(len(frag))) + "}")
    dst = "{" + ", ".join(f"%r{40 + i}" for i in range(n_out)) + "}"
    stores = "".join(f"st.global.u32 [%rd3+{128 * i}], %r{40 + i};\n" for i in range(n_out))
    run_ptx(
        MMA + loads + f"{op} {dst}, {', '.join(names)};\n" + stores,
        4,
        1,
        32,
        *(np.ascontiguousarray(f, "u4") for f in (fa, fb, fc)),
        out,
    )
    return out


LANE = np.arange(32)
G, T = LANE // 4, LANE % 4


def words(x):
    """Registers from element arrays: 16-bit elements are packed in pairs along the last axis."""
    return np.ascontiguousarray(x).view("u4")[..., 0]


def check_mma(op, A, B, pack, unpack16, tol, c16=False):
    K, C = A.shape[1], f32(16, 8)
    if c16:
        C = C.astype("f2")
    if unpack16:  # two k-values per register
        fa = [
            words(np.stack([pack(A[G + 8 * (i & 1), 2 * T + 8 * (i >> 1) + h]) for h in (0, 1)], -1))
            for i in range(K // 4)
        ]
        fb = [words(np.stack([pack(B[2 * T + 8 * i + h, G]) for h in (0, 1)], -1)) for i in range(K // 8)]
    else:
        fa = [pack(A[G + 8 * (i & 1), T + 4 * (i >> 1)]).view("u4") for i in range(K // 2)]
        fb = [pack(B[T + 4 * i, G]).view("u4") for i in range(K // 4)]
    if c16:
        fc = [words(np.stack([C[G + 8 * i, 2 * T + h] for h in (0, 1)], -1)) for i in (0, 1)]
        D = np.stack([x.reshape(32, 1).copy().view("f2") for x in mma(op, fa, fb, fc, 2)])
        got = np.zeros((16, 8))
        for i in (0, 1):
            for h in (0, 1):
                got[G + 8 * i, 2 * T + h] = D[i][:, h]
    else:
        fc = [np.ascontiguousarray(C[G + 8 * (i >> 1), 2 * T + (i & 1)]).view("u4") for i in range(4)]
        D = mma(op, fa, fb, fc, 4).view("f4")
        got = np.zeros((16, 8))
        for i in range(4):
            got[G + 8 * (i >> 1), 2 * T + (i & 1)] = D[i]
    want = A.astype("f8") @ B.astype("f8") + C
    assert np.abs(got - want).max() < tol, np.abs(got - want).max()


def bf16(x):
    return ((x.view("u4") + 0x8000) & 0xFFFF0000).view("f4")


def test_mma_f16():
    for K in (8, 16):
        A, B = f32(16, K).astype("f2"), f32(K, 8).astype("f2")
        for types, tol, c16 in (("f32.f16.f16.f32", 1e-5, False), ("f16.f16.f16.f16", 1e-2, True)):
            op = f"mma.sync.aligned.m16n8k{K}.row.col.{types}"
            check_mma(op, A, B, np.ascontiguousarray, True, tol, c16)


def test_mma_bf16():

    def pack(x):
        return (np.ascontiguousarray(x).view("u4") >> 16).astype("u2")

    for K in (8, 16):
        A, B = bf16(f32(16, K)), bf16(f32(K, 8))
        check_mma(f"mma.sync.aligned.m16n8k{K}.row.col.f32.bf16.bf16.f32", A, B, pack, True, 1e-5)


def test_mma_tf32():
    """The 13 low bits of the operands are ignored."""

    def pack(x):
        return np.ascontiguousarray(x).view("u4") | 0x155

    for K in (4, 8):
        A, B = ((f32(*s).view("u4") & 0xFFFFE000).view("f4") for s in ((16, K), (K, 8)))
        check_mma(f"mma.sync.aligned.m16n8k{K}.row.col.f32.tf32.tf32.f32", A, B, pack, False, 1e-5)


def test_cvt_tf32():
    x = np.array([1.0, 1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, 3.4e38, np.inf] + [0.1] * 26, "f4")
    out = np.zeros(32, "u4")
    run_ptx(
        "mov.u32 %r0, %tid.x; mul.wide.u32 %rd4, %r0, 4; add.u64 %rd0, %rd0, %rd4; add.u64 %rd1, %rd1, %rd4;\n"
        "ld.global.f32 %f0, [%rd0]; cvt.rna.tf32.f32 %r1, %f0; st.global.u32 [%rd1], %r1;",
        2,
        1,
        32,
        x,
        out,
    )
    want = (x.view("u4") + 0x1000) & 0xFFFFE000
    want[5] = x.view("u4")[5]
    assert (out == want).all()


def test_mma_int8():
    A, B = rng.integers(-128, 128, (16, 32)).astype("i1"), rng.integers(-128, 128, (32, 8)).astype("i1")
    fa = [
        np.ascontiguousarray(
            np.stack([A[G + 8 * (i & 1), 4 * T + 16 * (i >> 1) + j] for j in range(4)], -1)
        ).view("u4")[:, 0]
        for i in range(4)
    ]
    fb = [
        np.ascontiguousarray(np.stack([B[4 * T + 16 * i + j, G] for j in range(4)], -1)).view("u4")[:, 0]
        for i in range(2)
    ]
    D = mma("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", fa, fb, np.zeros((4, 32), "u4"), 4).view("i4")
    got = np.zeros((16, 8), "i4")
    for i in range(4):
        got[G + 8 * (i >> 1), 2 * T + (i & 1)] = D[i]
    assert (got == A.astype("i4") @ B.astype("i4")).all()


TILE = """mov.u32 %r0, %tid.x; mov.u32 %r1, sA; mov.u32 %r2, sB;
shl.b32 %r3, %r0, 4; add.u32 %r4, %r1, %r3; cvt.u64.u32 %rd4, %r3; add.u64 %rd5, %rd0, %rd4;
cp.async.cg.shared.global [%r4], [%rd5], 16;
setp.lt.u32 %p0, %r0, 16; add.u32 %r5, %r2, %r3; add.u64 %rd6, %rd1, %rd4;
@%p0 cp.async.ca.shared.global [%r5], [%rd6], 16;
cp.async.commit_group; WAIT bar.warp.sync 0xffffffff;
and.b32 %r6, %r0, 15; shr.u32 %r7, %r0, 4; shl.b32 %r8, %r6, 5; shl.b32 %r9, %r7, 4; add.u32 %r10, %r8, %r9;
add.u32 %r11, %r1, %r10; shl.b32 %r12, %r6, 4; add.u32 %r13, %r2, %r12;
ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r22, %r23}, [%r11];
ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r24, %r25}, [%r13];
mov.f32 %f0, 0f00000000;
mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
  {%f1, %f2, %f3, %f4}, {%r20, %r21, %r22, %r23}, {%r24, %r25}, {%f0, %f0, %f0, %f0};
shr.u32 %r30, %r0, 2; and.b32 %r31, %r0, 3; shl.b32 %r32, %r30, 5; shl.b32 %r33, %r31, 3; add.u32 %r34, %r32, %r33;
cvt.u64.u32 %rd7, %r34; add.u64 %rd8, %rd2, %rd7;
st.global.v2.f32 [%rd8], {%f1, %f2}; st.global.v2.f32 [%rd8+256], {%f3, %f4};"""
TILE_SHARED = ".shared .align 16 .b8 sA[512]; .shared .align 16 .b8 sB[256];"


def test_cp_async_ldmatrix_mma():
    A, B, C = f32(16, 16).astype("f2"), f32(16, 8).astype("f2"), np.zeros((16, 8), "f4")
    run_ptx(TILE.replace("WAIT", "cp.async.wait_group 0;"), 3, 1, 32, A, B, C, shared=TILE_SHARED)
    assert np.abs(C - A.astype("f8") @ B.astype("f8")).max() < 1e-5
    run_ptx(TILE.replace("WAIT", ""), 3, 1, 32, A, B, C, shared=TILE_SHARED)  # forgotten wait: poison
    assert np.isnan(C).all()


def test_mbarrier():
    """Two phases of a block-wide exchange through shared memory."""
    body = """mov.u32 %r0, %tid.x; mov.u32 %r1, bar; mov.u32 %r2, buf; shl.b32 %r3, %r0, 2; add.u32 %r4, %r2, %r3;
setp.ne.u32 %p0, %r0, 0; @%p0 bra INITED; mbarrier.init.shared.b64 [%r1], 128; INITED: bar.sync 0;
mov.u32 %r5, 0; mov.u32 %r6, %r0; xor.b32 %r7, %r3, 260; add.u32 %r7, %r2, %r7;
PHASE: st.shared.u32 [%r4], %r6; mbarrier.arrive.shared.b64 %rd2, [%r1];
W1: mbarrier.test_wait.shared.b64 %p1, [%r1], %rd2; @!%p1 bra W1;
ld.shared.u32 %r6, [%r7]; add.u32 %r6, %r6, 1000; mbarrier.arrive.shared.b64 %rd3, [%r1];
W2: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 1; @!%p1 bra W2;
add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 3; @%p2 bra PHASE;
cvt.u64.u32 %rd4, %r3; add.u64 %rd5, %rd0, %rd4; st.global.u32 [%rd5], %r6;"""
    out = np.zeros(128, "u4")
    for order in ("forward", "random"):
        run_ptx(body, 1, 1, 128, out, shared=".shared .align 8 .b64 bar; .shared .b32 buf[128];", order=order)
        assert (out == (np.arange(128) ^ 65) + 3000).all()


# ---- faults
def out_of_bounds(a, b):
    b[cuda.grid(1)] = a[cuda.grid(1)]


def divergent_barrier(a):
    if cuda.threadIdx.x < 40:
        cuda.syncthreads()
        a[0] = 1
    else:
        cuda.syncwarp()
        cuda.shfl_sync(0xFFFFFFFF, 1, 0)


def uninitialised(o):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    if t != 5:
        s[t] = t
    cuda.syncthreads()
    o[t] = s[63 - t]


def test_fault_messages():
    e = fails("out-of-bounds store of 4 bytes", out_of_bounds, 1, 32, np.zeros(32, "f4"), np.zeros(10, "f4"))
    assert "thread (10,0,0)" in e and "argument 1" in e and "kernel out_of_bounds:" in e, e
    assert "argument 0" in fails(
        "out-of-bounds load", out_of_bounds, 1, 32, np.zeros(31, "f4"), np.zeros(32, "f4")
    )
    fails("deadlock (divergent or missing barrier)", divergent_barrier, 1, 64, np.zeros(4, "f4"))
    a = np.zeros(64, "f4")
    try:
        run_ptx("add.u64 %rd0, %rd0, 4; ld.global.v2.f32 {%f0, %f1}, [%rd0];", 1, 1, 1, a)
        raise AssertionError("no fault")
    except PtxError as e:
        assert "misaligned load of 8 bytes" in str(e)
    try:
        run_ptx("nonsense.u32 %r0, %r1;", 1, 1, 1, a)
        raise AssertionError("no fault")
    except PtxError as e:
        assert "nonsense" in str(e)


def test_missing_barrier_partner_is_reported():
    import os

    os.environ["PTXEMU_HANG"] = "0.2"
    try:
        body = (
            "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 32; @%p0 bar.sync 0; @%p0 ret;\n"
            "LOOP: ld.volatile.global.u32 %r1, [%rd0]; setp.eq.u32 %p1, %r1, 0; @%p1 bra LOOP;"
        )
        run_ptx(body, 1, 1, 64, np.zeros(1, "u4"))
        raise AssertionError("no fault")
    except PtxError as e:
        assert "hang" in str(e), e
    finally:
        del os.environ["PTXEMU_HANG"]


def test_uninitialised_shared_memory():
    o = np.zeros(64, "f4")
    launch(uninitialised, None, 1, 64, o)
    assert np.isnan(o[58]) and not np.isnan(np.delete(o, 58)).any()
    fails("uninitialised", uninitialised, 1, 64, o, race=True, uninit=True)
