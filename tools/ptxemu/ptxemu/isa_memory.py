"""Loads, stores, atomics, asynchronous copies, address conversion, fences and cache hints."""

from .isa_control import pick
from .ptx_parser import Unsupported, bits, ctype, storage

SPACES = {
    "global": "SP_GLOBAL",
    "shared": "SP_SHARED",
    "local": "SP_LOCAL",
    "const": "SP_CONST",
    "generic": "SP_GEN",
}


class Memory:
    @staticmethod
    def space(mods):
        for x in mods:
            x = x.split("::")[0]
            if x in ("global", "shared", "local", "param", "const"):
                return x
        return "generic"

    def access(self, mods, n_elems, kind):
        """(check code, site): kind 0 load, 1 store, 2 atomic; the address is in a_."""
        sp = self.space(mods)
        if sp == "param":
            return "", 0
        st = self.site()
        return f"CHK(T,a_,{bits(self.type_of(mods)) // 8 * n_elems},{SPACES[sp]},{kind},{st});", st

    @staticmethod
    def volatile(mods):
        """C qualifier for accesses that other threads may observe or produce at any time"""
        return "volatile " if {"volatile", "relaxed", "acquire", "release"} & set(mods) else ""

    # ---- loads and stores
    def op_ld(self, mods, ops):
        t, v, w = self.type_of(mods), self.vector(ops[0]), bits(self.type_of(mods)) // 8
        ct = "u8" if storage(t)[0] == "p" else ctype(t)
        vol = self.volatile(mods)
        self.may_spin = self.may_spin or bool(vol)  # such a load may poll for another thread
        s = f"{{u64 a_={self.address(ops[1])};{self.access(mods, len(v), 0)[0]}"
        if len(v) == 1:
            return s + self.write(v[0], t, f"*({vol}{ct}*)a_") + "}"
        s += "".join(f"{ct} v{i}_=*({vol}{ct}*)(a_+{i * w});" for i in range(len(v)))
        return s + "".join(self.write(x, t, f"v{i}_") for i, x in enumerate(v) if x != "_") + "}"

    op_ldu = op_ld

    def op_st(self, mods, ops):
        t, v, w = self.type_of(mods), self.vector(ops[1]), bits(self.type_of(mods)) // 8
        ct, vol = ctype(t), self.volatile(mods)
        check, st = self.access(mods, len(v), 1)
        s = f"{{u64 a_={self.address(ops[0])};{check}"
        if self.space(mods) in ("shared", "generic"):
            s += f"{ct} w_[{len(v)}]={{{','.join(self.read(x, t) for x in v)}}}; RACEW(T,a_,{w * len(v)},{st},w_);"
            return s + "".join(f"*({vol}{ct}*)(a_+{i * w})=w_[{i}];" for i in range(len(v))) + "}"
        return s + "".join(f"*({vol}{ct}*)(a_+{i * w})={self.read(x, t)};" for i, x in enumerate(v)) + "}"

    # ---- atomics
    def atomic(self, mods, dst, addr, src):
        t, w = self.type_of(mods), bits(self.type_of(mods)) // 8
        op = pick(mods, ("add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"))
        if op in ("cas", "exch"):
            self.may_spin = True
        src = [self.vector(x) for x in src[: 2 if op == "cas" else 1]]
        n = len(src[0])
        if t in ("f16", "bf16", "f16x2", "bf16x2") and op in ("add", "min", "max"):
            fn, t = f"at_{op}_{t}", f"b{bits(t)}"
        elif t in ("f32", "f64") and op in ("add", "min", "max"):
            fn = f"at_{op}_{t}"
        else:
            if op not in ("min", "max"):
                t = f"b{bits(t)}"
            fn = f"at_{op}_{ctype(t)}"
        s = f"{{u64 a_={self.address(addr)};{self.access(mods, n, 2)[0]}"
        outs = self.vector(dst) if dst else ["_"] * n
        for i in range(n):
            s += self.write(outs[i], t, f"{fn}(a_+{i * w},{','.join(self.read(x[i], t) for x in src)})")
        return s + "}"

    def op_atom(self, mods, ops):
        return self.atomic(mods, ops[0], ops[1], ops[2:])

    def op_red(self, mods, ops):
        if "async" in mods:
            raise Unsupported("red.async")
        return self.atomic(mods, None, ops[0], ops[1:])

    # ---- asynchronous copies (performed when waited for, so a missing wait shows)
    def op_cp(self, mods, ops):
        if mods[0] != "async" or "bulk" in mods:
            raise Unsupported("cp.async.bulk / tensor")
        if "mbarrier" in mods:
            arrive = f"emu_mb_arrive(T,{self.address(ops[0])},1);" if "noinc" in mods else ""
            return "emu_cpwait(T,0,1);" + arrive
        if "commit_group" in mods:
            return "T->cp_group++;"
        if "wait_group" in mods:
            return f"emu_cpwait(T,{self.read(ops[0], 'u32')},0);"
        if "wait_all" in mods:
            return "emu_cpwait(T,0,1);"
        n, st = int(ops[2], 0), self.site()
        size = str(n)
        hint = any("cache_hint" in x for x in mods)
        if len(ops) > (4 if hint else 3):  # source size, or an ignore-source predicate
            r = self.register(ops[3])
            size = f"({r[0]}?0:{n})" if r and r[1] == "p" else self.read(ops[3], "u32")
        return (
            f"{{u64 d_={self.address(ops[0])},s_={self.address(ops[1])}; u32 n_={size};"
            f"CHK(T,d_,{n},SP_SHARED,1,{st}); RACEW(T,d_,{n},{st},0);"
            f"if(n_){{CHK(T,s_,{n},SP_GLOBAL,0,{st});}} emu_cpasync(T,d_,s_,{n},n_);}}"
        )

    def op_mbarrier(self, mods, ops):
        """The 64-bit object is laid out by emu_mb_arrive in emurt.c."""
        kind, self.needs_fibers = mods[0], True
        if "expect_tx" in mods or kind not in ("init", "inval", "arrive", "test_wait", "try_wait"):
            raise Unsupported("mbarrier transactions")
        if kind == "inval":
            return ";"
        addr = ops[0] if kind == "init" else ops[1]
        s = f"{{u64 a_={self.address(addr)};{self.access(mods, 1, 2)[0]}"
        if kind == "init":
            return s + f"*(u64*)a_={self.read(ops[1], 'u32')}*0x100000001ull;}}"
        if kind == "arrive":
            count = self.read(ops[2], "u32") if len(ops) > 2 else "1"
            return s + self.write(ops[0], "b64", f"emu_mb_arrive(T,a_,{count})") + "}"
        self.may_spin = True
        phase = f"{self.read(ops[2], 'u32')}&1" if "parity" in mods else f"{self.read(ops[2], 'u64')}>>63"
        return s + self.write(ops[0], "pred", f"emu_mb_done(T,a_,{phase})") + "}"

    # ---- addresses
    def op_cvta(self, mods, ops):
        return self.write(ops[0], self.type_of(mods), self.read(ops[1], self.type_of(mods)))

    def op_mapa(self, mods, ops):
        return self.op_cvta(mods, ops)

    def op_isspacep(self, mods, ops):
        a = self.read(ops[1], "u64")
        shared, local = f"({a}-SMB_<SMT_)", f"emu_isstack(T,{a})"
        tests = {"shared": shared, "local": local, "global": f"(!{shared} && !{local})"}
        return self.write(ops[0], "pred", tests.get(mods[0].split("::")[0], "0"))

    # ---- ordering and hints
    def op_fence(self, mods, ops):
        return "__sync_synchronize();"

    op_membar = op_fence

    def op_prefetch(self, mods, ops):
        return ";"

    op_prefetchu = op_applypriority = op_discard = op_prefetch

    def op_createpolicy(self, mods, ops):
        return self.write(ops[0], "b64", "0")
