"""Branches, calls, barriers, warp-wide operations and tensor-core instructions."""

import re

from .ptx_parser import Unsupported, bits, split_operands

RDV = "{{Rdv*r_=emu_rdv(T,{kind},~0u,{site}); "  # warp rendezvous: all lanes meet, then read results


def pick(mods, choices):
    """The first modifier that is one of choices."""
    for x in mods:
        if x in choices:
            return x
    raise Unsupported(f"needs one of {', '.join(choices)}")


class Control:
    # ---- control flow
    def op_bra(self, mods, ops):
        label = ops[0]
        if label not in self.labels:
            raise Unsupported("label " + label)
        backward = "BACKEDGE(T);" if label in self.seen_labels else ""
        return f"{backward}goto {self.labels[label]};"

    def op_brx(self, mods, ops):
        cases = "".join(f"case {i}: goto {self.labels[x]};" for i, x in enumerate(self.jump_tables[ops[1]]))
        return (
            f'switch({self.read(ops[0], "u32")}){{{cases} default: emu_fault(T,"brx index out of range");}}'
        )

    def op_ret(self, mods, ops):
        return "return;"

    def op_exit(self, mods, ops):
        return (
            "return;" if self.is_entry else 'emu_fault(T,"exit inside a device function is not supported");'
        )

    def op_trap(self, mods, ops):
        return 'emu_fault(T,"trap instruction (assertion or error exit)");'

    def nothing(self, mods, ops):
        return ";"

    op_brkpt = op_pmevent = op_griddepcontrol = op_setmaxnreg = nothing

    def op_nanosleep(self, mods, ops):
        self.may_spin = True
        return "emu_yield_run(T);"

    def op_call(self, mods, ops):
        rets, args, name = [], [], None
        for x in ops:
            if x.startswith("("):
                if name is None:
                    rets = split_operands(x[1:-1])
                else:
                    args = split_operands(x[1:-1])
            elif name is None:
                name = x
        ptrs = []
        for x in rets + args:
            s = self.lookup(x)
            if not s or s[0] != "mem":
                raise Unsupported("call argument " + x)
            ptrs.append("(u8*)" + s[1])
        if builtin := getattr(self, "call_" + name.lstrip("_"), None):
            return builtin(ptrs)
        tail = "".join("," + p for p in ptrs)
        if r := self.register(name):
            self.module.indirect_calls = True
            return f"((void(*)(Thread*{',u8*' * len(ptrs)})){r[0]})(T{tail});"
        f = self.module.funcs.get(name)
        if f is None:
            raise Unsupported("call to unknown function " + name)
        self.calls.add(name)
        if len(args) == len(f["params"]):  # declared and called with and without a result
            extra = len(rets) - len(f["rets"])
            ptrs = ptrs[extra:] if extra > 0 else ["(u8[16]){0}"] * -extra + ptrs
        return f"{f['c']}(T{''.join(',' + p for p in ptrs)});"

    # ---- functions of the device runtime
    def call_vprintf(self, p):
        return f"{{int r_=emu_vprintf(T,*(u64*){p[1]},*(u64*){p[2]}); *(int*){p[0]}=r_;}}"

    def call_malloc(self, p):
        return f"*(u64*){p[0]}=emu_malloc(T,*(u64*){p[1]});"

    def call_free(self, p):
        return f"emu_free(T,*(u64*){p[0]});"

    def call_assertfail(self, p):
        return f'emu_fault(T,"device assertion failed: %s",(char*)*(u64*){p[0]});'

    call_assert_fail = call_assertfail

    def call_cudaCGGetIntrinsicHandle(self, p):
        return f"*(u64*){p[0]}=1;"

    def call_cudaCGSynchronize(self, p):
        self.needs_fibers = True
        return f"emu_grid_sync(T,{self.site()}); *(u32*){p[0]}=0;"

    # ---- block barriers
    def op_bar(self, mods, ops):
        self.needs_fibers, st = True, self.site()
        if "warp" in mods:
            return f"emu_wsync(T,{self.read(ops[0], 'u32')},{st});"
        if "red" in mods:
            op, pred = pick(mods, ("popc", "and", "or")), self.read(ops[-1], "pred")
            count = self.read(ops[2], "u32") if len(ops) > 3 else "0"
            code = ("popc", "and", "or").index(op)
            return self.write(
                ops[0],
                "u32" if op == "popc" else "pred",
                f"emu_bar(T,{self.read(ops[1], 'u32')},{count},0,{code},{pred},{st})",
            )
        ident = self.read(ops[0], "u32") if ops else "0"
        count = self.read(ops[1], "u32") if len(ops) > 1 else "0"
        return f"emu_bar(T,{ident},{count},{int('arrive' in mods)},0,0,{st});"

    def op_barrier(self, mods, ops):
        if "cluster" in mods:  # a cluster is one block here
            self.needs_fibers = True
            return f"emu_bar(T,15,0,0,0,0,{self.site()});" if "wait" in mods else ";"
        return self.op_bar([x for x in mods if x != "aligned"], ops)

    # ---- warp-wide operations
    def value_and_pred(self, call, dst, t="b32"):
        """v_ = call(.., &p_); first destination takes v_, an optional second (d|p) takes p_."""
        d = dst.split("|")
        pred = self.write(d[1], "pred", "p_") if len(d) > 1 else ""
        return f"{{u8 p_; u32 v_={call}; {self.write(d[0], t, 'v_')}{pred}}}"

    def op_shfl(self, mods, ops):
        self.needs_fibers = True
        mode = ("up", "down", "bfly", "idx").index(pick(mods, ("up", "down", "bfly", "idx")))
        mask = self.read(ops[4], "u32") if "sync" in mods else "0xffffffffu"
        val, b, c = (self.read(ops[1], "b32"), self.read(ops[2], "u32"), self.read(ops[3], "u32"))
        return self.value_and_pred(f"emu_shfl(T,{val},{b},{c},{mask},{mode},{self.site()},&p_)", ops[0])

    def op_vote(self, mods, ops):
        self.needs_fibers, st = True, self.site()
        modes = ("all", "any", "uni", "ballot")
        m = pick(mods, modes)
        mask = self.read(ops[2], "u32") if "sync" in mods else f"emu_converged(T,{st})"
        return self.write(
            ops[0],
            "b32" if m == "ballot" else "pred",
            f"emu_vote(T,{self.read(ops[1], 'pred')},{mask},{modes.index(m)},{st})",
        )

    def op_activemask(self, mods, ops):
        self.needs_fibers = True
        return self.write(ops[0], "b32", f"emu_converged(T,{self.site()})")

    def op_match(self, mods, ops):
        self.needs_fibers = True
        val = self.read(ops[1], f"u{bits(self.type_of(mods))}")
        return self.value_and_pred(
            f"emu_match(T,{val},{self.read(ops[2], 'u32')},{int('all' in mods)},{self.site()},&p_)", ops[0]
        )

    def op_redux(self, mods, ops):
        self.needs_fibers, t = True, self.type_of(mods)
        op = pick(mods, ("add", "and", "or", "xor", "min", "max"))
        code = {"add": 0, "and": 1, "or": 2, "xor": 3}.get(op)
        if code is None:
            code = {"u32": 4, "b32": 4, "s32": 6, "f32": 8}[t] + (op == "max")
        return self.write(
            ops[0],
            "b32",
            f"emu_redux(T,{self.read(ops[1], 'b32')},{self.read(ops[2], 'u32')},{code},{self.site()})",
        )

    def op_elect(self, mods, ops):
        self.needs_fibers = True
        return self.value_and_pred(f"emu_elect(T,{self.read(ops[1], 'u32')},{self.site()},&p_)", ops[0])

    # ---- matrix fragments
    def matrix_count(self, mods):
        if "m8n8" not in mods:
            raise Unsupported("matrix shape")
        self.needs_fibers = True
        return {"x1": 1, "x2": 2, "x4": 4}[pick(mods, ("x1", "x2", "x4"))]

    def op_ldmatrix(self, mods, ops):
        n, st = self.matrix_count(mods), self.site()
        outs = "".join(
            self.write(x, "b32", f"r_->out[T->lane][{i}]") for i, x in enumerate(self.vector(ops[0]))
        )
        return (
            RDV.format(kind="K_LDM", site=st) + f"u64 a_={self.address(ops[1])}; "
            f"if(T->lane<{8 * n}) CHK(T,a_,16,SP_SHARED,0,{st}); memcpy(&r_->in[T->lane][0],&a_,8);"
            f"emu_rdv_wait(T,r_,emu_ldmatrix,{n | 8 * ('trans' in mods)});{outs} emu_rdv_leave(T,r_);}}"
        )

    def op_stmatrix(self, mods, ops):
        n, st = self.matrix_count(mods), self.site()
        ins = "".join(
            f"r_->in[T->lane][{2 + i}]={self.read(x, 'b32')};" for i, x in enumerate(self.vector(ops[1]))
        )
        return (
            RDV.format(kind="K_LDM", site=st) + f"u64 a_={self.address(ops[0])}; if(T->lane<{8 * n})"
            f"{{CHK(T,a_,16,SP_SHARED,1,{st}); RACEW(T,a_,16,{st},0);}} memcpy(&r_->in[T->lane][0],&a_,8);{ins}"
            f"emu_rdv_wait(T,r_,emu_stmatrix,{n | 8 * ('trans' in mods)}); emu_rdv_leave(T,r_);}}"
        )

    def op_movmatrix(self, mods, ops):
        self.needs_fibers = True
        return (
            RDV.format(kind="K_LDM", site=self.site()) + f"r_->in[T->lane][0]={self.read(ops[1], 'b32')};"
            f"emu_rdv_wait(T,r_,emu_movmatrix,0); {self.write(ops[0], 'b32', 'r_->out[T->lane][0]')}"
            "emu_rdv_leave(T,r_);}"
        )

    def op_mma(self, mods, ops):
        """Fragments go to in[lane] at fixed word offsets (A 0, B 8, C 16; for f64 0, 16, 24)."""
        self.needs_fibers = True
        shape = next((x for x in mods if re.match(r"m\d+n8k\d+$", x)), "")
        if not shape:
            raise Unsupported("mma shape")
        m, k = map(int, re.findall(r"\d+", shape)[::2])
        rest = mods[mods.index(shape) + 1 :]
        types = self.types_of(rest)
        codes = {"f16": 0, "bf16": 1, "tf32": 2, "s8": 3, "u8": 4, "e4m3": 5, "e5m2": 6, "f64": 7}
        if [x for x in rest if x in ("row", "col")] != ["row", "col"] or len(types) != 4:
            raise Unsupported("mma form")
        dt, at, bt, ct = types
        if at not in codes or bt not in codes or (shape, at) == ("m8n8k4", "f16"):
            raise Unsupported("mma types")
        imm = (
            codes[at]
            | codes[bt] << 4
            | (m == 16) << 8
            | k << 10
            | (ct == "f16") << 16
            | (dt == "f16") << 17
            | ("satfinite" in mods) << 18
        )
        double = at == "f64"
        s = RDV.format(kind="K_MMA", site=self.site()) + "u32*i_=r_->in[T->lane];"
        for off, op in zip((0, 16, 24) if double else (0, 8, 16), ops[1:4], strict=True):
            for i, x in enumerate(self.vector(op)):
                if double:
                    s += f"{{double z_={self.read(x, 'f64')}; memcpy(&i_[{off + 2 * i}],&z_,8);}}"
                else:
                    s += f"i_[{off + i}]={self.read(x, 'b32')};"
        s += f"emu_rdv_wait(T,r_,emu_mma,{imm});"
        for i, x in enumerate(self.vector(ops[0])):
            if double:
                s += f"{{double z_; memcpy(&z_,&r_->out[T->lane][{2 * i}],8); {self.write(x, 'f64', 'z_')}}}"
            else:
                s += self.write(x, "b32", f"r_->out[T->lane][{i}]")
        return s + "emu_rdv_leave(T,r_);}"
