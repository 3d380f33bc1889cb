"""PTX text -> top-level items, parameters and statements.  No instruction semantics here."""

import re
import struct

TYPE_BITS = {f"{k}{w}": w for k in "bus" for w in (8, 16, 32, 64)} | {"b128": 128}
# Other types live in integer ("i") or float ("f") C variables of a given width.
OTHER_TYPES = {
    "f16": ("i", 16),
    "bf16": ("i", 16),
    "e4m3x2": ("i", 16),
    "e5m2x2": ("i", 16),
    "f16x2": ("i", 32),
    "bf16x2": ("i", 32),
    "tf32": ("i", 32),
    "u16x2": ("i", 32),
    "s16x2": ("i", 32),
    "f32x2": ("i", 64),
    "f32": ("f", 32),
    "f64": ("f", 64),
    "pred": ("p", 8),
}
NAMED_ONLY = {"e4m3", "e5m2", "u4", "s4", "b1", "b4x16"}  # legal only as mma element types
TYPES = set(TYPE_BITS) | set(OTHER_TYPES) | NAMED_ONLY


class Unsupported(Exception):
    """A construct this translator does not know; the statement becomes a run-time fault."""


def storage(t):
    """(class, bits) of the C variable that holds PTX type t; class is 'i', 'f' or 'p'."""
    if t in TYPE_BITS:
        return "i", TYPE_BITS[t]
    if t in OTHER_TYPES:
        return OTHER_TYPES[t]
    raise Unsupported("type " + t)


def bits(t):
    return storage(t)[1]


def ctype(t):
    """C type used to compute with PTX type t."""
    cls, w = storage(t)
    if cls == "p":
        return "u8"
    if cls == "f":
        return "float" if w == 32 else "double"
    return ("s" if t[0] == "s" else "u") + str(w)


def cname(name):
    return re.sub(r"\W", "_", name)


def cstr(s):
    s = s.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"\s", " ", s) + '"'


def split_operands(s):
    """Split on commas that are outside (), [] and {}."""
    out, depth, cur = [], 0, ""
    for ch in s:
        depth += (ch in "([{") - (ch in ")]}")
        if ch == "," and depth == 0:
            out.append(cur.strip())
            cur = ""
        else:
            cur += ch
    return [*out, cur.strip()] if cur.strip() else out


def strip_comments(text):
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def _skip_string(t, i):
    return t.index('"', i + 1)


def _closing_brace(t, i):
    """Index of the brace that closes the one at t[i]."""
    depth = 0
    while True:
        if t[i] == "{":
            depth += 1
        elif t[i] == "}":
            depth -= 1
            if depth == 0:
                return i
        elif t[i] == '"':
            i = _skip_string(t, i)
        i += 1


def top_level(t):
    """Yield ('var', text, None) and ('func', header, body or None) from comment-free PTX."""
    i, n = 0, len(t)
    while i < n:
        if t[i].isspace() or t[i] == ";":
            i += 1
            continue
        m = re.compile(r"\.(version|target|address_size|file|loc|pragma)\b[^\n]*").match(t, i)
        if m:
            i = m.end()
            continue
        if t.startswith(".section", i):
            i = t.index("}", i) + 1
            continue
        j, depth, is_func = i, 0, None
        while j < n and not (t[j] == ";" and depth == 0):
            if t[j] == "{":
                if is_func is None:
                    is_func = bool(re.search(r"\.(entry|func)\b", t[i:j]))
                if is_func:
                    break
                depth += 1
            elif t[j] == "}":
                depth -= 1
            elif t[j] == '"':
                j = _skip_string(t, j)
            j += 1
        head = t[i:j]
        if j < n and t[j] == "{":
            end = _closing_brace(t, j)
            yield "func", head, t[j + 1 : end]
            i = end + 1
        else:
            kind = "func" if re.search(r"\.(entry|func)\b", head) else "var"
            yield kind, head, None
            i = j + 1


def parse_params(s):
    """'.param .align 8 .b8 p[16], ...' -> [(name, size, alignment)]"""
    out = []
    for p in split_operands(s):
        m = re.match(r"\.param((?:\s*\.\w+(?:\s+\d+)?)*)\s+([\w$.%]+)\s*(?:\[(\d*)\])?\s*$", p)
        if not m:
            raise Unsupported("parameter " + p)
        quals, name, count = m.groups()
        # an .align after .ptr is that of the pointed-to memory, not of the parameter
        align = re.search(r"\.align\s+(\d+)", quals.split(".ptr")[0])
        types = [q for q in re.findall(r"\.(\w+)", quals) if q in TYPES]
        if not types:
            raise Unsupported("type of parameter " + p)
        width = bits(types[0]) // 8
        out.append((name, width * int(count or 1), max(width, int(align.group(1)) if align else 1)))
    return out


def statements(body):
    """Function body -> list of '{', '}', 'label:', '.loc FILE LINE' and statement strings."""
    label = re.compile(r"([\w$%]+)\s*:(?!:)")
    loc = re.compile(r"\.(loc|file)\b[^\n]*")
    i, n, out = 0, len(body), []
    while i < n:
        c = body[i]
        if c.isspace() or c == ";":
            i += 1
        elif c in "{}":
            out.append(c)
            i += 1
        elif m := label.match(body, i):
            out.append(m.group(1) + ":")
            i = m.end()
        elif m := loc.match(body, i):
            out.append(" ".join(m.group(0).split()[:3]))
            i = m.end()
        else:
            j = i
            while j < n and body[j] != ";":
                if body[j] == '"':
                    j = _skip_string(body, j)
                j += 1
            out.append(re.sub(r"\s+", " ", body[i:j]).strip())
            i = j + 1
    return out


def is_label(tok):
    return tok.endswith(":") and tok != ":"


def parse_initializer(t, text):
    """Initialiser of a variable of element type t -> (bytes, [(offset, symbol, addend)])."""
    width, data, relocs = bits(t) // 8, b"", []
    for v in (x.strip() for x in re.sub(r"[{}]", "", text).split(",")):
        if not v:
            continue
        if m := re.match(r"^0[fFdD]([0-9a-fA-F]+)$", v):
            data += int(m.group(1), 16).to_bytes(width, "little")
        elif re.match(r"^-?(0[xX][0-9a-fA-F]+|\d+)U?$", v):
            v = v.rstrip("U")
            x = int(v, 8) if re.match(r"^0[0-7]+$", v) else int(v, 0)
            data += (x & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif m := re.match(r"^(?:generic\()?([A-Za-z_$%][\w$]*)\)?\s*(?:\+\s*(\d+))?\)?$", v):
            relocs.append((len(data), m.group(1), int(m.group(2) or 0)))
            data += bytes(8)
        else:
            data += struct.pack("<f" if width == 4 else "<d", float(v))
    return data, relocs
