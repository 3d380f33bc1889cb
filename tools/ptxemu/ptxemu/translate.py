"""PTX -> C.  translate([ptx text, ...]) returns the C source of one loadable module.

Every kernel becomes `void kernel(Thread *T, const u8 *KP)` (KP: the parameter buffer), every device
function `static void f(Thread *T, u8 *a0_, ...)` whose arguments point at the caller's .param
variables.  PTX registers become C locals, labels become labels.  A statement that is not understood
becomes a fault that is raised only if it is executed.  The emitted module also exports:
  emu_sites[]      source text of each memory/barrier instruction, for messages
  emu_meta         lines "entry ...", "global ...", "unsupported ..." (see load_meta in harness.py)
  emu_modinit()    fills in addresses inside initialised variables
"""

import re

from .isa_arith import Arithmetic
from .isa_control import Control
from .isa_memory import Memory
from .ptx_parser import (
    TYPES,
    Unsupported,
    bits,
    cname,
    cstr,
    ctype,
    is_label,
    parse_initializer,
    parse_params,
    split_operands,
    statements,
    storage,
    strip_comments,
    top_level,
)

# Special registers, as C expressions over the Thread T.
SPECIAL = {
    f"%{r}.{ax}": f"T->{c}{ax}"
    for r, c in (("tid", "t"), ("ntid", "n"), ("ctaid", "c"), ("nctaid", "g"))
    for ax in "xyz"
}
SPECIAL |= {f"%cluster_{r}.{ax}": v for r, v in (("ctaid", "0u"), ("nctaid", "1u")) for ax in "xyz"}
SPECIAL |= {f"%{r}.{ax}": f"T->{c}{ax}" for r, c in (("clusterid", "c"), ("nclusterid", "g")) for ax in "xyz"}
SPECIAL |= {
    "%laneid": "T->lane",
    "%warpid": "(T->ltid>>5)",
    "%nwarpid": "((T->nx*T->ny*T->nz+31)/32)",
    "%smid": "0u",
    "%nsmid": "1u",
    "%gridid": "0ull",
    "WARP_SZ": "32u",
    "%clock": "((u32)emu_now())",
    "%clock_hi": "((u32)(emu_now()>>32))",
    "%clock64": "emu_now()",
    "%globaltimer": "emu_now()",
    "%globaltimer_lo": "((u32)emu_now())",
    "%globaltimer_hi": "((u32)(emu_now()>>32))",
    "%lanemask_eq": "T->bit",
    "%lanemask_lt": "(T->bit-1u)",
    "%lanemask_le": "(T->bit|(T->bit-1u))",
    "%lanemask_gt": "(~(T->bit|(T->bit-1u)))",
    "%lanemask_ge": "(~(T->bit-1u))",
    "%dynamic_smem_size": "T->smem_dyn",
    "%total_smem_size": "T->smem_tot",
    "%cluster_ctarank": "0u",
    "%cluster_nctarank": "1u",
    "%is_explicit_cluster": "0u",
}


class Module:
    """Names, variables and shared-memory layout common to all functions of one module."""

    def __init__(self):
        self.names, self.vars, self.funcs, self.shared = {}, {}, {}, {}
        self.sites, self.unsupported = ["?"], set()
        self.shared_size = self.const_size = self.dynamic_align = 0
        self.indirect_calls = False

    def site(self, text):
        """Number under which messages will quote this instruction."""

        def shorten(m):
            tail = re.search(r"_param_\d+$", m.group(0))
            return m.group(0)[:24] + ".." + (tail.group(0) if tail else "")

        self.sites.append(re.sub(r"_Z\w{30,}", shorten, text)[:200])
        return len(self.sites) - 1

    def c_name(self, name):
        return self.names.setdefault(name, f"g{len(self.names)}_{cname(name)[:24]}")

    def add_shared(self, name, size, align, dynamic):
        if dynamic:
            self.shared[name] = "SDYN"
            self.dynamic_align = max(self.dynamic_align, align, 16)
        else:
            self.shared_size = (self.shared_size + align - 1) // align * align
            self.shared[name] = str(self.shared_size)
            self.shared_size += size

    def static_shared(self):
        a = self.dynamic_align or 1
        return (self.shared_size + a - 1) // a * a


class Function(Arithmetic, Memory, Control):
    """Translates one function body.  Instruction groups are in the base classes: op_NAME(mods, ops)
    gets the dot-modifiers and operand strings and returns C code."""

    def __init__(self, module, name, is_entry):
        self.module, self.name, self.is_entry = module, name, is_entry
        self.scopes, self.params, self.labels, self.jump_tables = [{}], {}, {}, {}
        self.code, self.calls, self.seen_labels = [], set(), set()
        self.needs_fibers = False  # has warp/block level operations
        self.may_spin = False  # may wait for another thread in a loop
        self.local_bytes = 0
        self.line = ""  # source line, if the PTX has line information

    # ---- operands
    def lookup(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def register(self, name):
        """(C name, class, bits) or None"""
        s = self.lookup(name)
        return s[1:] if s and s[0] == "reg" else None

    @staticmethod
    def is_number(s):
        return re.match(r"^[-+]?(\d|0[fFdDxX])", s) is not None

    def number(self, s, t):
        """C expression of literal s read as PTX type t."""
        neg, b, ct, cls = s.startswith("-"), s.lstrip("+-"), ctype(t), storage(t)[0]
        m = re.match(r"^0([fFdD])([0-9a-fA-F]+)$", b)
        if m and len(m.group(2)) in (8, 16):
            f = m.group(1) in "fF"
            e = f"u2f(0x{m.group(2)}u)" if f else f"u2d(0x{m.group(2)}ull)"
            e = f"(-{e})" if neg else e
            return f"(({ct}){'f2u' if f else 'd2u'}({e}))" if cls == "i" else f"(({ct}){e})"
        if "." in b or (re.search(r"[eE]", b) and not b.lower().startswith("0x")):
            return f"(({ct})d2u({s}))" if cls == "i" else f"(({ct}){s})"
        b = b.rstrip("uU")
        v = int(b, 8) if re.match(r"^0[0-7]+$", b) else int(b, 0)
        v = -v if neg else v
        if cls == "f":
            return f"(({ct}){v})"
        return str(int(v != 0)) if cls == "p" else f"(({ct})0x{v & (1 << 64) - 1:x}ull)"

    @staticmethod
    def convert(cls, w, e, t):
        """Expression e of a variable (cls, w), reinterpreted as PTX type t (no value conversion)."""
        want, w2 = storage(t)
        ct = ctype(t)
        if want == "p" or (cls == want == "f" and w == w2):
            return e
        if cls == "p" or cls == want == "f":
            return f"(({ct}){e})"
        if want == "f":
            return f"u2f((u32){e})" if w2 == 32 else f"u2d((u64){e})"
        if cls == "f":
            e = f"f2u({e})" if w == 32 else f"d2u({e})"
        elif w == w2 and ct[0] == "u":
            return e
        return f"(({ct}){e})"

    def read(self, o, t):
        """C expression for operand o used as type t."""
        o = o.strip()
        if o[0] == "!":
            return f"(!{self.read(o[1:], t)})"
        if r := self.register(o):
            return self.convert(r[1], r[2], r[0], t)
        if o in SPECIAL:
            return f"(({ctype(t) if storage(t)[0] != 'f' else 'u32'}){SPECIAL[o]})"
        if o.startswith(("%envreg", "%pm")):
            return "0"
        if self.is_number(o):
            return self.number(o, t)
        if o[0] in "-~":
            return f"({o[0]}{self.read(o[1:], t)})"
        m = re.match(r"^([\w$%]+)\s*([+-])\s*(\d+|0x[0-9a-fA-F]+)$", o)
        e = f"{self.symbol(m.group(1))}{m.group(2)}{m.group(3)}" if m else self.symbol(o)
        return f"(({ctype(t) if storage(t)[0] == 'i' else 'u64'})({e}))"

    def symbol(self, name):
        """C expression of the address of a variable, parameter or function."""
        m, s = self.module, self.lookup(name)
        if s:
            return f"(u64)({s[1]})"
        if name in self.params:
            return f"(u64)({self.params[name]})"
        if name in m.shared:
            return f"(SMB_+{m.shared[name]})"
        if name in m.vars:
            return f"(u64)&{m.vars[name]}"
        if name in m.funcs:
            return f"(u64)&{m.funcs[name]['c']}"
        raise Unsupported("unknown symbol " + name)

    def address(self, o):
        """C expression of an address operand [base+offset]."""
        o = o.strip()
        if not o.startswith("["):
            return self.read(o, "u64")
        m = re.match(r"^([\w$%.]+)\s*(?:([+-])\s*(-?\w+))?$", o[1:-1].strip())
        if not m:
            raise Unsupported("address " + o)
        base, sign, off = m.groups()
        r = self.register(base)
        e = f"(u64){r[0]}" if r else f"(u64){base}" if self.is_number(base) else self.symbol(base)
        off = int(off, 0) * (1 if sign == "+" else -1) if off else 0
        return f"({e}{off:+d}ll)" if off else e

    def write(self, o, t, e):
        """C statement: destination operand o = expression e of PTX type t."""
        o = o.strip()
        if o == "_":
            return f"(void)({e});"
        r = self.register(o)
        if not r:
            raise Unsupported("destination " + o)
        name, cls, w = r
        have, tw = storage(t)
        if cls == "p" or have == "p" or cls == have == "f":
            return f"{name}={e};"
        if cls == "f":
            return f"{name}=u2f((u32)({e}));" if w == 32 else f"{name}=u2d((u64)({e}));"
        if have == "f":
            return f"{name}=f2u({e});" if tw == 32 else f"{name}=d2u({e});"
        if tw < w:  # a narrow result in a wider register is sign- or zero-extended
            return f"{name}=(u{w})(s{w})(s{tw})({e});" if t[0] == "s" else f"{name}=(u{w})(u{tw})({e});"
        return f"{name}=(u{w})({e});"

    @staticmethod
    def vector(o):
        o = o.strip()
        return split_operands(o[1:-1]) if o.startswith("{") else [o]

    @staticmethod
    def type_of(mods):
        """The last type among the modifiers."""
        return [x for x in mods if x in TYPES][-1]

    @staticmethod
    def types_of(mods):
        return [x for x in mods if x in TYPES]

    def site(self):
        return self.module.site(self.text + self.line)

    # ---- declarations
    def declare(self, st):
        m = re.match(r"\.reg\s*((?:\.\w+\s*)+)(.*)$", st)
        if m:
            return self.declare_registers(self.types_of(re.findall(r"\.(\w+)", m.group(1)))[0], m.group(2))
        m = re.match(
            r"\.(local|shared|param)\s*((?:\.\w+(?:\s+\d+)?\s*)*)\s+([\w$%]+)\s*((?:\[\s*\d*\s*\])*)", st
        )
        if not m:
            raise Unsupported("declaration " + st)
        space, quals, name, dims = m.groups()
        size, align = object_size(quals, dims)
        if space == "shared":
            return self.module.add_shared(name, size, align, False)
        self.code.append(f"u8 m_{cname(name)}[{max(size, 1)}] __attribute__((aligned({max(align, 16)})));")
        self.scopes[-1][name] = ("mem", "m_" + cname(name))
        if space == "local":
            self.local_bytes += size + 16

    def declare_registers(self, t, names):
        cls, w = storage(t)
        ct = f"u{w}" if cls == "i" else ctype(t)
        for nm in split_operands(names):
            m = re.match(r"([\w$%]+)\s*<\s*(\d+)\s*>$", nm)
            group = [f"{m.group(1)}{i}" for i in range(int(m.group(2)))] if m else [nm]
            used = [n for n in group if n in self.used_names]
            for n in used:
                self.scopes[-1][n] = ("reg", ("r_" if n[0] == "%" else "n_") + cname(n.lstrip("%")), cls, w)
            for i in range(0, len(used), 16):
                self.code.append(
                    f"{ct} " + ",".join(self.scopes[-1][n][1] + "=0" for n in used[i : i + 16]) + ";"
                )

    # ---- body
    def run(self, body):
        self.used_names = set(re.findall(r"[\w$%]+", body))
        toks = self.take_tables(statements(body))
        self.labels = {t[:-1]: "L_" + cname(t[:-1]) for t in toks if is_label(t)}
        for t in toks:
            if t == "{":
                self.scopes.append({})
                self.code.append("{")
            elif t == "}":
                self.scopes.pop()
                self.code.append(";}")
            elif is_label(t):
                self.seen_labels.add(t[:-1])
                self.code.append(self.labels[t[:-1]] + ":;")
            elif re.match(r"\.(reg|local|shared|param)\b", t):
                self.declare(t)
            elif t.startswith(".loc "):
                self.line = f" [line {t.split()[2]}]"
            elif not t.startswith("."):
                self.statement(t)

    def take_tables(self, toks):
        """Remove 'label: .branchtargets ...' and 'label: .callprototype ...' pairs."""
        out, i = [], 0
        while i < len(toks):
            nxt = toks[i + 1] if i + 1 < len(toks) else ""
            if is_label(toks[i]) and nxt.startswith((".branchtargets", ".callprototype")):
                if nxt.startswith(".branchtargets"):
                    self.jump_tables[toks[i][:-1]] = split_operands(nxt[len(".branchtargets") :])
                i += 2
            else:
                out.append(toks[i])
                i += 1
        return out

    def statement(self, text):
        self.text = text
        try:
            m = re.match(r"^(?:@(!?)([\w$%]+)\s+)?([\w.:]+)\s*(.*)$", text)
            if not m:
                raise Unsupported("syntax")
            neg, pred, op, ops = m.groups()
            opcode, *mods = op.split(".")
            handler = getattr(self, "op_" + opcode, None)
            if handler is None:
                raise Unsupported("opcode")
            code = handler([x for x in mods if x], split_operands(ops))
            if pred:
                code = f"if({'!' if neg else ''}{self.read(pred, 'pred')}){{{code}}}"
            self.code.append(code)
        except (Unsupported, KeyError, IndexError, ValueError, AttributeError, TypeError) as e:
            self.module.unsupported.add(f"{text}   ({e or type(e).__name__})")
            self.code.append(f'emu_fault(T,"unsupported PTX: %s",{cstr(text)});')


def object_size(quals, dims):
    """(.align 8 .b8, [4][2]) -> (size, alignment)"""
    t = Function.type_of(re.findall(r"\.(\w+)", quals))
    align = re.search(r"\.align\s+(\d+)", quals)
    width, count = bits(t) // 8, 1
    for d in re.findall(r"\[\s*(\d*)\s*\]", dims):
        count *= int(d or 0)
    return width * count, max(width, int(align.group(1)) if align else 1)


VARIABLE = re.compile(
    r"((?:\.\w+(?:::\w+)?(?:\s+\d+)?\s*)+)\s+([\w$]+)\s*((?:\[\s*\d*\s*\])*)\s*(?:=\s*(.*))?$", re.S
)
KERNEL_ATTRS = re.compile(
    r"\.(noreturn|maxntid|minnctapersm|maxnctapersm|reqntid|maxnreg|abi_preserve\w*|"
    r"reqnctapercluster|explicitcluster|maxclusterrank|unified\w*)\b[\s\d,]*"
)


class Translator:
    """Whole-module state while the parts are put together."""

    def __init__(self):
        self.m, self.decls, self.globals, self.relocs, self.bodies = Module(), [], {}, [], []

    def variable(self, text, defined_elsewhere):
        m = VARIABLE.match(text.strip())
        if not m:
            raise Unsupported("variable " + text[:100])
        quals, name, dims, init = m.groups()
        words = re.findall(r"\.(\w+)", quals)
        size, align = object_size(quals, dims)
        if name in self.m.shared or name in self.m.vars or ("extern" in words and name in defined_elsewhere):
            return
        if "shared" in words:
            return self.m.add_shared(name, size, align, "extern" in words or size == 0)
        cn = self.m.vars[name] = self.m.c_name(name)
        data, relocs = parse_initializer(Function.type_of(words), init) if init else (b"", [])
        size = max(size, len(data), 1)
        if "const" in words:
            self.m.const_size += size
        values = "={" + ",".join(map(str, data)) + "}" if data else ""
        self.decls.append(f"EXPORT __attribute__((aligned({max(align, 8)}))) u8 {cn}[{size}]{values};")
        self.relocs += [(cn, off, sym, add) for off, sym, add in relocs]
        self.globals[name] = (cn, size)

    def function(self, header, body):
        m = re.search(r"\.(entry|func)\b(.*)$", header, re.S)
        entry, rest = m.group(1) == "entry", m.group(2)
        bound = re.search(r"\.(?:maxntid|reqntid)\s+([\d,\s]+)", rest)
        regs = re.search(r"\.maxnreg\s+(\d+)", rest)
        m = re.match(r"\s*(\((.*?)\))?\s*([\w$]+)\s*(?:\((.*)\))?\s*$", KERNEL_ATTRS.sub("", rest), re.S)
        if not m:
            raise Unsupported("function header " + rest[:80])
        name = m.group(3)
        rets, params = (parse_params(s) if s and s.strip() else [] for s in (m.group(2), m.group(4)))
        f = self.m.funcs.setdefault(
            name, {"c": self.m.c_name(name) + ("_K" if entry else "_F"), "defined": False, "entry": entry}
        )
        if (body is not None and not f["defined"]) or "params" not in f:
            threads = 1024
            if bound:
                threads = 1
                for x in bound.group(1).replace(" ", "").strip(",").split(","):
                    threads *= int(x)
            f.update(rets=rets, params=params, maxthreads=threads, regs=int(regs.group(1)) if regs else 0)
        if body is not None and not f["defined"]:
            f["defined"] = True
            self.bodies.append((name, body))

    def translate_body(self, name, body):
        f = self.m.funcs[name]
        fn = Function(self.m, name, f["entry"])
        if f["entry"]:
            off, f["layout"] = 0, []
            for pname, size, align in f["params"]:
                off = (off + align - 1) // align * align
                fn.params[pname] = f"KP+{off}"
                f["layout"].append((off, size))
                off += size
            f["psize"] = off
        else:
            for i, p in enumerate(f["rets"] + f["params"]):
                fn.params[p[0]] = f"a{i}_"
        fn.run(body)
        return fn

    def prototype(self, f):
        if f["entry"]:
            return f"EXPORT void {f['c']}(Thread*T,const u8*KP)"
        args = "".join(f",u8*a{i}_" for i in range(len(f["rets"] + f["params"])))
        return f"static __attribute__((noinline)) void {f['c']}(Thread*T{args})"

    def reachable(self, name, objs, seen):
        """Functions that may run when `name` is called."""
        if name not in seen and name in objs:
            seen.add(name)
            callees = set(objs[name].calls)
            if self.m.indirect_calls:
                callees |= {n for n in objs if not objs[n].is_entry}
            for c in callees:
                self.reachable(c, objs, seen)
        return seen

    def meta(self, objs, spin):
        """Lines describing the module; entry: name, C name, parameter bytes, needs fibers, stack bytes,
        local bytes, max threads, registers, then offset:size of each parameter."""
        lines = [f"module {self.m.static_shared()} {self.m.const_size}"]
        for name, f in self.m.funcs.items():
            if not (f["entry"] and f["defined"]):
                continue
            reach = self.reachable(name, objs, set())
            local = sum(objs[x].local_bytes for x in reach)
            stack = local * (1 if len(reach) == 1 else 8) + 8192 * len(reach)
            fibers = int(spin or any(objs[x].needs_fibers for x in reach))
            params = " ".join(f"{o}:{s}" for o, s in f["layout"])
            lines.append(
                f"entry {name} {f['c']} {f['psize']} {fibers} {stack} {local} "
                f"{f['maxthreads']} {f['regs']} {len(f['layout'])} {params}"
            )
        lines += [f"global {n} {c} {s}" for n, (c, s) in self.globals.items()]
        lines += [f"unsupported {u}" for u in sorted(self.m.unsupported)]
        return lines

    def run(self, texts):
        items = [x for t in texts for x in top_level(strip_comments(t))]
        defined = {
            VARIABLE.match(h.strip()).group(2)
            for k, h, _ in items
            if k == "var" and ".extern" not in h and VARIABLE.match(h.strip())
        }
        for kind, head, body in items:
            if kind == "var":
                self.variable(head, defined)
            else:
                self.function(head, body)
        objs = {name: self.translate_body(name, body) for name, body in self.bodies}
        spin = any(o.may_spin for o in objs.values())
        out = [
            '#include "emurt.h"',
            *self.decls,
            f"#define SDYN {self.m.static_shared()}",
            f"#define BACKEDGE(T) {'SPIN(T)' if spin else '(void)0'}",
        ]
        out += [self.prototype(f) + ";" for f in self.m.funcs.values()]
        for name, o in objs.items():
            out += [self.prototype(self.m.funcs[name]) + "{u8 CC=0;(void)CC;PROLOG(T)", *o.code, ";}"]
        for name, f in self.m.funcs.items():
            if not f["defined"] and not f["entry"]:
                out.append(
                    self.prototype(f) + f'{{emu_fault(T,"call to undefined function %s",{cstr(name[:80])});}}'
                )
        out.append("EXPORT const char*const emu_sites[]={" + ",\n".join(map(cstr, self.m.sites)) + ",0};")
        out.append(
            "EXPORT const char emu_meta[]="
            + "\n".join(cstr(x) + '"\\n"' for x in self.meta(objs, spin))
            + ";"
        )
        fix = "".join(
            f"*(u64*)({cn}+{off})=(u64)&{self.m.vars.get(s) or self.m.funcs[s]['c']}+{add};"
            for cn, off, s, add in self.relocs
        )
        out.append(f"EXPORT void emu_modinit(void){{{fix}}}")
        return "\n".join(out) + "\n"


def translate(texts):
    return Translator().run([texts] if isinstance(texts, str) else texts)
