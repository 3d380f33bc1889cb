"""Arithmetic, logic, comparison, conversion and data-movement instructions on registers."""

from .isa_control import pick
from .ptx_parser import Unsupported, bits, ctype

ROUNDING = {"rm": "0x2000", "rp": "0x4000", "rz": "0x6000"}  # MXCSR bits; rn is the default
HALF = ("f16", "bf16", "f16x2", "bf16x2")
FLOATS = ("f32", "f64", *HALF)
COMPARE_FLOAT = {
    "eq": "({0}=={1})",
    "ne": "({0}<{1}||{0}>{1})",
    "lt": "({0}<{1})",
    "le": "({0}<={1})",
    "gt": "({0}>{1})",
    "ge": "({0}>={1})",
    "equ": "(!({0}<{1}||{0}>{1}))",
    "neu": "({0}!={1})",
    "ltu": "(!({0}>={1}))",
    "leu": "(!({0}>{1}))",
    "gtu": "(!({0}<={1}))",
    "geu": "(!({0}<{1}))",
    "num": "({0}=={0}&&{1}=={1})",
    "nan": "({0}!={0}||{1}!={1})",
}
COMPARE_INT = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
    "hs": ">=",
}
BOOL_OPS = {"and": "&", "or": "|", "xor": "^"}
SAT_S32 = "({{s64 z=(s64){0}{1}(s64){2}; (s32)(z>2147483647?2147483647:z<-2147483648ll?-2147483648ll:z);}})"
TO_INT = {"rni": "nearbyint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


def rounding(mods):
    return next((ROUNDING[x] for x in mods if x in ROUNDING), None)


def unpack(t):
    """C function that widens a 16-bit float of (packed) type t to float."""
    return "b2f" if t.startswith("bf") else "h2f"


class Arithmetic:
    # ---- shared helpers
    def reads(self, ops, t):
        return [self.read(x, t) for x in ops]

    def write_int(self, ops, t, e):
        return self.write(ops[0], t, f"({ctype(t)})({e})")

    def finish_float(self, dst, t, mods, e):
        """Apply .ftz and .sat to a result and store it."""
        if "ftz" in mods and t == "f32":
            e = f"ftz({e})"
        if "sat" in mods:
            e = f"{'satf' if t == 'f32' else 'satd'}({e})"
        return self.write(dst, t, e)

    def float_operands(self, mods, ops, t):
        v = self.reads(ops, t)
        return [f"ftz({x})" for x in v] if "ftz" in mods and t == "f32" else v

    def float_binary(self, mods, ops, sign, name):
        t, rc = self.type_of(mods), rounding(mods)
        if t in HALF:
            return self.half(mods, ops, lambda a, b: f"({a}{sign}{b})", 2)
        a, b = self.float_operands(mods, ops[1:3], t)
        e = f"{name}{'ss' if t == 'f32' else 'sd'}_r({a},{b},{rc})" if rc else f"({a}{sign}{b})"
        return self.finish_float(ops[0], t, mods, e)

    def half(self, mods, ops, fn, n, double=False):
        """Lane-wise op on f16/bf16 (x2): widen, compute in float (or double), round once."""
        t = self.type_of(mods)
        b16 = "b" if t.startswith("bf") else "h"
        srcs = self.reads(ops[1 : 1 + n], "b32" if t.endswith("x2") else "b16")

        def one(shift):
            e = fn(*[f"{'(double)' if double else ''}{unpack(t)}((u16)({v}>>{shift}))" for v in srcs])
            if "sat" in mods:
                e = f"satf({e})"
            if "relu" in mods:
                e = f"fmaxp(0.f,(float)({e}))"
            return f"{'d' if double else 'f'}2{b16}({e})"

        if t.endswith("x2"):
            return self.write(ops[0], "b32", f"((u32){one(0)}|(u32){one(16)}<<16)")
        return self.write(ops[0], "b16", one(0))

    def f32x2(self, ops, fn, n):
        v = self.reads(ops[1 : 1 + n], "b64")
        lo, hi = (fn(*[f"u2f((u32)({x}>>{sh}))" for x in v]) for sh in (0, 32))
        return self.write(ops[0], "b64", f"(u64)f2u({lo})|(u64)f2u({hi})<<32")

    # ---- integer and float arithmetic
    def op_add(self, mods, ops):
        t = self.type_of(mods)
        if t in FLOATS:
            return self.float_binary(mods, ops, "+", "add")
        if t == "f32x2":
            return self.f32x2(ops, lambda a, b: f"{a}+{b}", 2)
        if t in ("u16x2", "s16x2"):
            a, b = self.reads(ops[1:3], "b32")
            return self.write(ops[0], "b32", f"(u32)(u16)({a}+{b})|(({a}>>16)+({b}>>16))<<16")
        a, b = self.reads(ops[1:3], t)
        u = f"u{bits(t)}"
        if "sat" in mods:
            return self.write(ops[0], t, SAT_S32.format(a, "+", b))
        if "cc" in mods:
            return f"{{{u} a_={a},b_={b},c_=a_+b_; CC=c_<a_; {self.write(ops[0], t, 'c_')}}}"
        return self.write_int(ops, t, f"({u}){a}+({u}){b}")

    def op_sub(self, mods, ops):
        t = self.type_of(mods)
        if t in FLOATS:
            return self.float_binary(mods, ops, "-", "sub")
        if t == "f32x2":
            return self.f32x2(ops, lambda a, b: f"{a}-{b}", 2)
        a, b = self.reads(ops[1:3], t)
        u = f"u{bits(t)}"
        if "sat" in mods:
            return self.write(ops[0], t, SAT_S32.format(a, "-", b))
        if "cc" in mods:
            return f"{{{u} a_={a},b_={b}; CC=a_<b_; {self.write(ops[0], t, 'a_-b_')}}}"
        return self.write_int(ops, t, f"({u}){a}-({u}){b}")

    def with_carry(self, mods, ops, t, e):
        """Store the low half of the double-width sum e; .cc keeps its carry."""
        w = bits(t)
        carry = f"CC=(z_>>{w})!=0;" if "cc" in mods else ""
        return f"{{u{2 * w} z_={e}; {carry} {self.write(ops[0], t, f'(u{w})z_')}}}"

    def op_addc(self, mods, ops):
        t = self.type_of(mods)
        a, b = self.reads(ops[1:3], f"u{bits(t)}")
        return self.with_carry(mods, ops, t, f"(u{2 * bits(t)}){a}+{b}+CC")

    def op_subc(self, mods, ops):
        t = self.type_of(mods)
        w = bits(t)
        a, b = self.reads(ops[1:3], f"u{w}")
        borrow = "CC=a_<b_;" if "cc" in mods else ""
        return f"{{u{2 * w} a_={a},b_=(u{2 * w}){b}+CC; {borrow} {self.write(ops[0], t, f'(u{w})(a_-b_)')}}}"

    def product(self, mods, a, b, t):
        """Low, high (.hi) or full (.wide) product of integer expressions."""
        w, sign = bits(t), "s" if t[0] == "s" else "u"
        wide = f"({sign}{2 * w}){a}*({sign}{2 * w}){b}"
        if "wide" in mods:
            return f"({wide})"
        if "hi" in mods:
            return f"(u{w})(({wide})>>{w})"
        return f"(u{w})((u{max(w, 32)}){a}*(u{max(w, 32)}){b})"

    def op_mul(self, mods, ops):
        t = self.type_of(mods)
        if t in FLOATS:
            return self.float_binary(mods, ops, "*", "mul")
        if t == "f32x2":
            return self.f32x2(ops, lambda a, b: f"{a}*{b}", 2)
        a, b = self.reads(ops[1:3], t)
        result = f"{'s' if t[0] == 's' else 'u'}{2 * bits(t)}" if "wide" in mods else t
        return self.write_int((ops[0],), result, self.product(mods, a, b, t))

    def op_mad(self, mods, ops):
        t = self.type_of(mods)
        if t in ("f32", "f64"):
            return self.op_fma(mods, ops)
        a, b = self.reads(ops[1:3], t)
        p, w = self.product(mods, a, b, t), bits(t)
        if "wide" in mods:
            wt = f"{'s' if t[0] == 's' else 'u'}{2 * w}"
            return self.write(ops[0], wt, f"(u{2 * w}){p}+(u{2 * w}){self.read(ops[3], wt)}")
        c = self.read(ops[3], t)
        if "cc" in mods:
            return f"{{u{w} a_={p},b_={c},c_=a_+b_; CC=c_<a_; {self.write(ops[0], t, 'c_')}}}"
        return self.write_int(ops, t, f"{p}+(u{w}){c}")

    def op_madc(self, mods, ops):
        t = self.type_of(mods)
        a, b, c = self.reads(ops[1:4], t)
        w = bits(t)
        return self.with_carry(mods, ops, t, f"(u{2 * w}){self.product(mods, a, b, t)}+(u{w}){c}+CC")

    def op_mul24(self, mods, ops, addend=""):
        t = self.type_of(mods)
        cut = "((s64)((s32)((u32){}<<8)>>8))" if t[0] == "s" else "((u64)({}&0xffffff))"
        a, b = (cut.format(x) for x in self.reads(ops[1:3], t))
        return self.write_int(ops, t, f"(({a}*{b}){'>>16' if 'hi' in mods else ''}){addend}")

    def op_mad24(self, mods, ops):
        return self.op_mul24(mods, ops, "+" + self.read(ops[3], self.type_of(mods)))

    def op_fma(self, mods, ops):
        t, rc = self.type_of(mods), rounding(mods)
        if t in HALF:
            return self.half(mods, ops, lambda a, b, c: f"({a}*{b}+{c})", 3, double=True)
        if t == "f32x2":
            return self.f32x2(ops, lambda a, b, c: f"__builtin_fmaf({a},{b},{c})", 3)
        v = ",".join(self.float_operands(mods, ops[1:4], t))
        e = (
            f"fma{'ss' if t == 'f32' else 'sd'}_r({v},{rc})"
            if rc
            else f"__builtin_fma{'f' if t == 'f32' else ''}({v})"
        )
        return self.finish_float(ops[0], t, mods, e)

    def op_div(self, mods, ops):
        t = self.type_of(mods)
        if t in ("f32", "f64"):
            return self.float_binary(mods, ops, "/", "div")
        return self.write_int(ops, t, f"{ctype(t)}_div({','.join(self.reads(ops[1:3], t))})")

    def op_rem(self, mods, ops):
        t = self.type_of(mods)
        return self.write_int(ops, t, f"{ctype(t)}_rem({','.join(self.reads(ops[1:3], t))})")

    def op_neg(self, mods, ops):
        t = self.type_of(mods)
        if t in HALF:
            b, k = ("b32", "0x80008000u") if t.endswith("x2") else ("b16", "0x8000")
            return self.write(ops[0], b, f"({self.read(ops[1], b)}^{k})")
        if t in ("f32", "f64"):
            return self.finish_float(ops[0], t, mods, f"(-{self.read(ops[1], t)})")
        return self.write_int(ops, t, f"0-(u{bits(t)}){self.read(ops[1], t)}")

    def op_abs(self, mods, ops):
        t = self.type_of(mods)
        if t in HALF:
            b, k = ("b32", "0x7fff7fffu") if t.endswith("x2") else ("b16", "0x7fff")
            return self.write(ops[0], b, f"({self.read(ops[1], b)}&{k})")
        if t in ("f32", "f64"):
            fn = "fabsf" if t == "f32" else "fabs"
            return self.finish_float(ops[0], t, mods, f"{fn}({self.read(ops[1], t)})")
        ct = ctype(t)
        return self.write_int(
            ops, t, f"({{{ct} z_={self.read(ops[1], t)}; z_<0?({ct})(0-(u{bits(t)})z_):z_;}})"
        )

    def min_max(self, mods, ops, k):
        t, nan = self.type_of(mods), "n" if "NaN" in mods else "p"
        less = "<" if k == "min" else ">"
        if t in HALF:
            return self.half(mods, ops, lambda a, b: f"f{k}{nan}({a},{b})", 2)
        if t in ("f32", "f64"):
            v = self.float_operands(mods, ops[1:], t)
            if "xorsign" in mods:
                a, b = v
                return self.write(
                    ops[0],
                    t,
                    f"u2f((f2u(f{k}p(fabsf({a}),fabsf({b})))&0x7fffffff)|((f2u({a})^f2u({b}))&0x80000000))",
                )
            e = v[0]
            for x in v[1:]:
                e = f"{f'f{k}{nan}' if t == 'f32' else f'd{k}p'}({e},{x})"
            return self.write(ops[0], t, e)
        if t in ("u16x2", "s16x2"):
            a, b = self.reads(ops[1:3], "b32")
            ct = t[0] + "16"
            return self.write(
                ops[0],
                "b32",
                f"({{{ct} a0=({ct})({a}),b0=({ct})({b}),a1=({ct})({a}>>16),"
                f"b1=({ct})({b}>>16); (u32)(u16)(a0{less}b0?a0:b0)|(u32)(u16)(a1{less}b1?a1:b1)<<16;}})",
            )
        a, b = self.reads(ops[1:3], t)
        return self.write(ops[0], t, f"({{{ctype(t)} a_={a},b_={b}; a_{less}b_?a_:b_;}})")

    def op_min(self, mods, ops):
        return self.min_max(mods, ops, "min")

    def op_max(self, mods, ops):
        return self.min_max(mods, ops, "max")

    def op_sad(self, mods, ops):
        t = self.type_of(mods)
        a, b, c = self.reads(ops[1:4], t)
        return self.write_int(ops, t, f"({{{ctype(t)} a_={a},b_={b}; {c}+(a_<b_?b_-a_:a_-b_);}})")

    def dot(self, name, mods, ops, extra=""):
        ta, tb = self.types_of(mods)[:2]
        a, b, c = self.reads(ops[1:4], "b32")
        return self.write(
            ops[0], "b32", f"(u32){name}({a},{b},(s32){c},{int(ta == 's32')},{int(tb == 's32')}{extra})"
        )

    def op_dp4a(self, mods, ops):
        return self.dot("dp4a", mods, ops)

    def op_dp2a(self, mods, ops):
        return self.dot("dp2a", mods, ops, f",{int('hi' in mods)}")

    # ---- special functions (approximate ones use libm, so they are more exact than a GPU's)
    def unary(self, mods, ops, f32, f64=None):
        t = self.type_of(mods)
        if t in HALF:
            return self.half(mods, ops, lambda a: f"{f32}({a})", 1)
        (a,) = self.float_operands(mods, ops[1:2], t)
        return self.finish_float(ops[0], t, mods, f"{f32 if t == 'f32' else f64}({a})")

    def op_ex2(self, mods, ops):
        return self.unary(mods, ops, "exp2f")

    def op_lg2(self, mods, ops):
        return self.unary(mods, ops, "log2f")

    def op_sin(self, mods, ops):
        return self.unary(mods, ops, "sinf")

    def op_cos(self, mods, ops):
        return self.unary(mods, ops, "cosf")

    def op_tanh(self, mods, ops):
        return self.unary(mods, ops, "tanhf")

    def op_rcp(self, mods, ops):
        t = self.type_of(mods)
        if rounding(mods):
            one = "0f3F800000" if t == "f32" else "0d3FF0000000000000"
            return self.float_binary(mods, [ops[0], one, ops[1]], "/", "div")
        if t == "f64" and "approx" in mods:  # 20 bits of mantissa, the rest zero
            return self.write(ops[0], t, f"u2d(d2u(1.0/{self.read(ops[1], t)})&~0xffffffffull)")
        return self.unary(mods, ops, "1.0f/", "1.0/")

    def op_sqrt(self, mods, ops):
        t, rc = self.type_of(mods), rounding(mods)
        if rc:
            return self.write(
                ops[0], t, f"sqrt{'ss' if t == 'f32' else 'sd'}_r(0,{self.read(ops[1], t)},{rc})"
            )
        return self.unary(mods, ops, "sqrtf", "sqrt")

    def op_rsqrt(self, mods, ops):
        t = self.type_of(mods)
        if t == "f64":
            return self.write(ops[0], t, f"u2d(d2u(1.0/sqrt({self.read(ops[1], t)}))&~0xffffffffull)")
        return self.unary(mods, ops, "rsqrtf_")

    def op_copysign(self, mods, ops):
        t = self.type_of(mods)
        a, b = self.reads(ops[1:3], t)
        return self.write(ops[0], t, f"copysign{'f' if t == 'f32' else ''}({b},{a})")

    def op_testp(self, mods, ops):
        tests = {
            "finite": "isfinite({})",
            "infinite": "isinf({})",
            "number": "!isnan({})",
            "notanumber": "isnan({})",
            "normal": "isnormal({})",
            "subnormal": "(fpclassify({})==FP_SUBNORMAL)",
        }
        test = tests[pick(mods, tests)].format(self.read(ops[1], self.type_of(mods)))
        return self.write(ops[0], "pred", f"({test})!=0")

    # ---- logic and bit fields
    def logic(self, mods, ops, sign):
        t = self.type_of(mods)
        return self.write(ops[0], t, f"({sign.join(self.reads(ops[1:3], t))})")

    def op_and(self, mods, ops):
        return self.logic(mods, ops, "&")

    def op_or(self, mods, ops):
        return self.logic(mods, ops, "|")

    def op_xor(self, mods, ops):
        return self.logic(mods, ops, "^")

    def op_not(self, mods, ops):
        t = self.type_of(mods)
        return self.write(ops[0], t, f"{'!' if t == 'pred' else '~'}{self.read(ops[1], t)}")

    def op_cnot(self, mods, ops):
        t = self.type_of(mods)
        return self.write(ops[0], t, f"({self.read(ops[1], t)}==0)")

    def op_shl(self, mods, ops):
        t = f"b{bits(self.type_of(mods))}"
        return self.write(ops[0], t, f"shl{t[1:]}({self.read(ops[1], t)},{self.read(ops[2], 'u32')})")

    def op_shr(self, mods, ops):
        t = self.type_of(mods)
        k = f"{'s' if t[0] == 's' else 'u'}{bits(t)}"
        return self.write(ops[0], t, f"shr{k}({self.read(ops[1], k)},{self.read(ops[2], 'u32')})")

    def b32_call(self, ops, fn, extra=""):
        return self.write(ops[0], "b32", f"{fn}({','.join(self.reads(ops[1:], 'b32'))}{extra})")

    def op_shf(self, mods, ops):
        return self.b32_call(ops, f"shf_{mods[0]}", f",{int('clamp' in mods)}")

    def op_prmt(self, mods, ops):
        modes = ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
        mode = [modes.index(x) for x in mods if x in modes]
        return self.b32_call(ops, "prmt_mode" if mode else "prmt", f",{mode[0]}" if mode else "")

    def op_lop3(self, mods, ops):
        if "|" in ops[0]:
            raise Unsupported("lop3 with predicate result")
        return self.b32_call(ops[:5], "lop3")

    def op_bmsk(self, mods, ops):
        return self.b32_call(ops, "bmsk", f",{int('clamp' in mods)}")

    def op_szext(self, mods, ops):
        return self.b32_call(ops, "szext", f",{int(self.type_of(mods) == 's32')},{int('clamp' in mods)}")

    def op_fns(self, mods, ops):
        return self.b32_call(ops, "fns")

    def op_bfe(self, mods, ops):
        t = self.type_of(mods)
        args = [self.read(ops[1], f"u{bits(t)}"), *self.reads(ops[2:4], "u32")]
        return self.write_int(ops, t, f"bfe_({','.join(args)},{bits(t)},{int(t[0] == 's')})")

    def op_bfi(self, mods, ops):
        t = self.type_of(mods)
        args = self.reads(ops[1:3], t) + self.reads(ops[3:5], "u32")
        return self.write(ops[0], t, f"(u{bits(t)})bfi_({','.join(args)},{bits(t)})")

    def op_bfind(self, mods, ops):
        t = self.type_of(mods)
        return self.write(
            ops[0], "u32", f"bfind_{ctype(t)}({self.read(ops[1], t)},{int('shiftamt' in mods)})"
        )

    def op_brev(self, mods, ops):
        t = self.type_of(mods)
        return self.write(ops[0], t, f"brev{bits(t)}({self.read(ops[1], t)})")

    def op_clz(self, mods, ops):
        t = self.type_of(mods)
        return self.write(ops[0], "u32", f"clz{bits(t)}({self.read(ops[1], t)})")

    def op_popc(self, mods, ops):
        return self.write(ops[0], "u32", f"__builtin_popcountll({self.read(ops[1], self.type_of(mods))})")

    # ---- comparison and selection
    def compare(self, cmp, t, a, b, mods=()):
        if t not in FLOATS:
            return f"({a}{COMPARE_INT[cmp]}{b})"
        if t == "f32" and "ftz" in mods:
            a, b = f"ftz({a})", f"ftz({b})"
        return COMPARE_FLOAT[cmp].format(a, b)

    def compared(self, mods, ops, t):
        """Comparison results, one per lane (two for packed types)."""
        if t not in HALF:
            return [self.compare(mods[0], t, *self.reads(ops[1:3], t), mods)]
        x2 = t.endswith("x2")
        a, b = self.reads(ops[1:3], "b32" if x2 else "b16")
        return [
            self.compare(mods[0], "f16", f"{unpack(t)}((u16)({a}>>{s}))", f"{unpack(t)}((u16)({b}>>{s}))")
            for s in ((0, 16) if x2 else (0,))
        ]

    def op_setp(self, mods, ops):
        t, dst = self.type_of(mods), ops[0].split("|")
        res = self.compared(mods, ops, t)
        if len(res) == 2:
            return "".join(self.write(d, "pred", e) for d, e in zip(dst, res, strict=False))
        combine = [BOOL_OPS[x] for x in mods[1:] if x in BOOL_OPS]
        tail = f"{combine[0]}p_" if combine else ""
        s = f"{{u8 c_={res[0]}{',p_=' + self.read(ops[3], 'pred') if combine else ''}; "
        s += self.write(dst[0], "pred", f"(c_{tail})")
        if len(dst) > 1:
            s += self.write(dst[1], "pred", f"((!c_){tail})")
        return s + "}"

    def op_set(self, mods, ops):
        dt, t = self.types_of(mods)[0], self.type_of(mods)
        one = {"f16x2": "0x3c00", "bf16x2": "0x3f80", "f16": "0x3c00", "bf16": "0x3f80", "f32": "1.f"}.get(dt)
        res = self.compared(mods, ops, t)
        if len(res) == 2:
            lo, hi = (f"(u32)({e}?{one or '0xffff'}:0)" for e in res)
            return self.write(ops[0], "b32", f"({lo}|{hi}<<16)")
        e = res[0]
        combine = [BOOL_OPS[x] for x in mods[1:] if x in BOOL_OPS]
        if combine:
            e = f"({e}{combine[0]}{self.read(ops[3], 'pred')})"
        return self.write(ops[0], "b16" if dt in HALF else dt, f"({e}?{one or '~0u'}:0)")

    def op_selp(self, mods, ops):
        t = self.type_of(mods)
        a, b = self.reads(ops[1:3], t)
        return self.write(ops[0], t, f"({self.read(ops[3], 'pred')}?{a}:{b})")

    def op_slct(self, mods, ops):
        t, ct = self.types_of(mods)
        a, b = self.reads(ops[1:3], t)
        return self.write(ops[0], t, f"({self.read(ops[3], ct)}>=0?{a}:{b})")

    # ---- moves and conversions
    def op_mov(self, mods, ops):
        t = self.type_of(mods)
        w = bits(t)
        if ops[0].startswith("{"):  # unpack
            v = self.vector(ops[0])
            k = w // len(v)
            parts = "".join(
                self.write(x, f"b{k}", f"(u{k})(z_>>{i * k})") for i, x in enumerate(v) if x != "_"
            )
            return f"{{u{w} z_={self.read(ops[1], f'b{w}')};{parts}}}"
        if ops[1].startswith("{"):  # pack
            v = self.vector(ops[1])
            k = w // len(v)
            return self.write(
                ops[0],
                f"b{w}",
                "|".join(f"((u{w}){self.read(x, f'b{k}')}<<{i * k})" for i, x in enumerate(v)),
            )
        return self.write(ops[0], t, self.read(ops[1], t))

    def op_cvt(self, mods, ops):
        types = self.types_of(mods)
        if len(types) < 2:
            raise Unsupported("cvt")
        dt, st = types[0], types[-1]
        if dt in ("f16x2", "bf16x2", "e4m3x2", "e5m2x2") or st in ("e4m3x2", "e5m2x2"):
            return self.cvt_packed(mods, ops, dt, st)
        if dt == "tf32":
            fn = "f2tf32" if "rna" in mods else "f2tf32n"
            return self.write(ops[0], "b32", f"{fn}({self.read(ops[1], 'f32')})")
        floats = ("f16", "bf16", "f32", "f64")
        if st in floats:
            src = self.read(ops[1], "b16" if st in HALF else st)
            src = (
                f"{unpack(st)}({src})"
                if st in HALF
                else f"ftz({src})"
                if st == "f32" and "ftz" in mods
                else src
            )
            return (self.cvt_float_float if dt in floats else self.cvt_float_int)(mods, ops, dt, st, src)
        return (self.cvt_int_float if dt in floats else self.cvt_int_int)(
            mods, ops, dt, st, self.read(ops[1], st)
        )

    def cvt_packed(self, mods, ops, dt, st):
        relu = (lambda x: f"fmaxp(0.f,{x})") if "relu" in mods else (lambda x: x)
        if dt in ("f16x2", "bf16x2") and st == "f32":
            fn = ("f2h" if dt == "f16x2" else "f2b") + ("z" if "rz" in mods else "")
            hi, lo = (relu(x) for x in self.reads(ops[1:3], "f32"))
            return self.write(ops[0], "b32", f"((u32){fn}({hi})<<16|{fn}({lo}))")
        if dt in ("e4m3x2", "e5m2x2"):
            if st == "f32":
                hi, lo = self.reads(ops[1:3], "f32")
            else:
                v = self.read(ops[1], "b32")
                hi, lo = f"{unpack(st)}((u16)({v}>>16))", f"{unpack(st)}((u16){v})"
            return self.write(ops[0], "b16", f"((u16)f2{dt[:4]}({relu(hi)})<<8|f2{dt[:4]}({relu(lo)}))")
        if st in ("e4m3x2", "e5m2x2") and dt == "f16x2":
            v, fn = self.read(ops[1], "b16"), st[:4] + "f"
            return self.write(
                ops[0], "b32", f"((u32)f2h({relu(f'{fn}((u8)({v}>>8))')})<<16|f2h({relu(f'{fn}((u8){v})')}))"
            )
        raise Unsupported("packed conversion")

    def cvt_float_float(self, mods, ops, dt, st, src):
        double, rc = st == "f64", rounding(mods)
        to_int = [TO_INT[x] for x in mods if x in TO_INT]
        if to_int:
            src = f"{to_int[0]}{'' if double else 'f'}({src})"
        if dt == "f32":
            e = f"cvtsd2ss_r({src},{rc})" if double and rc else f"((float){src})"
            return self.finish_float(ops[0], dt, mods, e)
        if dt == "f64":
            return self.finish_float(ops[0], dt, mods, f"((double){src})")
        if rc and "rz" not in mods:
            raise Unsupported("rounding")
        if "sat" in mods:
            src = f"satf({src})"
        if "relu" in mods:
            src = f"fmaxp(0.f,{src})"
        z = "z" if "rz" in mods else ""
        return self.write(
            ops[0], "b16", f"{'d' if double and not z else 'f'}2{'h' if dt == 'f16' else 'b'}{z}({src})"
        )

    def cvt_float_int(self, mods, ops, dt, st, src):
        """Saturating; NaN gives 0 (the minimum, or 2**63, for the forms where hardware does so)."""
        fn = TO_INT[next((x for x in mods if x in TO_INT), "rzi")]
        w, x = bits(dt), f"{fn}((double){src})"
        zero_nan = w < 64 and st != "f64"
        if dt[0] == "s":
            lo = f"-{2 ** (w - 1)}" if w < 64 else "(-0x7fffffffffffffffll-1)"
            return self.write(ops[0], dt, f"d2s({x},{lo},{2 ** (w - 1) - 1}ll,{'0' if zero_nan else lo})")
        nan = "0" if zero_nan else f"{1 << w - 1}ull"
        return self.write(ops[0], dt, f"d2uu({x},{2**w - 1}ull,{nan})")

    def cvt_int_float(self, mods, ops, dt, st, a):
        rc = rounding(mods)
        if dt in HALF:
            return self.write(ops[0], "b16", f"{'d2h' if dt == 'f16' else 'd2b'}((double){a})")
        e = f"(({ctype(dt)}){a})"
        if rc:
            e = f"cvt{'si' if st[0] == 's' else 'u'}2{'ss' if dt == 'f32' else 'sd'}_r({a},{rc})"
        return self.finish_float(ops[0], dt, mods, e)

    def cvt_int_int(self, mods, ops, dt, st, a):
        if "sat" not in mods:
            return self.write_int(ops, dt, a)
        w = bits(dt)
        lo, hi = ("0", f"{2**w - 1}ull")
        if dt[0] == "s":
            lo, hi = f"(-{2 ** (w - 1) - 1}ll-1)", f"{2 ** (w - 1) - 1}ll"
        return self.write(
            ops[0], dt, f"({{s128 z_={a}; z_<(s128){lo}?(s128){lo}:z_>(s128){hi}?(s128){hi}:z_;}})"
        )
