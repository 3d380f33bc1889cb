"""What ptxas and nvdisasm say about kernels: registers, spills, instructions, loops. No GPU takes part.

Both programs come from wheels (`nvidia-cuda-nvcc`, `nvidia-cuda-nvdisasm`), whose versions are known, never from a
toolkit that happens to be on the machine. This file knows no kernel of ours.
"""

import re
import subprocess
import tempfile
from collections import Counter
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

WHEELS = {"ptxas": "nvidia-cuda-nvcc", "nvdisasm": "nvidia-cuda-nvdisasm"}


class MissingTool(RuntimeError):
    """A program of the wheels is not installed."""


@cache
def tool(name: str) -> Path:
    """The path of ptxas or nvdisasm in its wheel."""
    wheel = WHEELS[name]
    try:
        version, files = metadata.version(wheel), metadata.files(wheel) or []
    except metadata.PackageNotFoundError:
        raise MissingTool(f"the package {wheel} (for {name}) is not installed") from None
    if int(version.partition(".")[0]) < 13:
        raise MissingTool(f"{wheel} is {version}, expected 13 or newer")
    path = next((Path(file.locate()) for file in files if file.name == name), None)
    if path is None or not path.is_file():
        raise MissingTool(f"{wheel} {version} has no program {name} on this system")
    return path


# ---------------------------------------------------------------------------------------------- machine code


class Instruction(NamedTuple):
    """One line of SASS: ``@!P0 LDG.E.128 R8, [R2.64] ;``."""

    name: str  # LDG
    modifiers: tuple[str, ...]  # E, 128
    operands: str


class Code(NamedTuple):
    """The machine code of a kernel and what it needs of a processor."""

    registers: int  # of a thread
    stack: int  # bytes of a thread in local memory
    spills: int  # bytes stored and loaded because registers ran out
    shared: int  # bytes of static shared memory of a block
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]  # place in `instructions`

    def count(self, *names: str) -> int:
        """How many instructions have one of these names."""
        return sum(one.name in names for one in self.instructions)

    def doubles(self) -> int:
        """How many instructions compute in float64, or convert to or from it."""
        return sum(is_double(one) for one in self.instructions)

    def calls(self) -> list[str]:
        """The names that are called. (ptxas also leaves loops by a CALL to a label nearby, which is not one.)"""
        targets = (_target(one) for one in self.instructions if one.name == "CALL")
        return [target or "by address" for target in targets if not target.startswith(".L_")]

    def widths(self, *names: str) -> Counter[int]:
        """How many accesses of some kinds (``LDG``, ``STG``, …) there are of each size in bytes."""
        return Counter(width(one) for one in self.instructions if one.name in names)

    def loops(self) -> list[range]:
        """The innermost loops: from the target of a branch backwards to the branch."""
        found = set()
        for place, one in enumerate(self.instructions):
            start = self.labels.get(_target(one), place) if one.name == "BRA" else place
            if start < place:
                found.add((start, place + 1))
        inner = [
            (start, stop)
            for start, stop in found
            if not any((a, b) != (start, stop) and start <= a and b <= stop for a, b in found)
        ]
        return [range(start, stop) for start, stop in sorted(inner)]

    def share(self, name: str) -> float:
        """The part of the instructions of this name in the innermost loop that has most of them; 0 without one."""
        best = (0, 1)
        for loop in self.loops():
            hits = sum(self.instructions[place].name == name for place in loop)
            best = max(best, (hits, len(loop)))
        hits, length = best
        return hits / length


def _target(one: Instruction) -> str:
    """The label that a branch or call goes to; empty where that is computed."""
    found = re.search(r"`\(([^)]+)\)", one.operands)
    return found.group(1) if found else ""


def is_double(one: Instruction) -> bool:
    """Whether an instruction has to do with float64: DADD, DFMA, F2F.F32.F64, MUFU.RCP64H, …"""
    arithmetic = re.fullmatch(r"D(ADD|MUL|FMA|MNMX|SETP?|MMA)", one.name)
    return bool(arithmetic) or any(word in ("F64", "RCP64H", "RSQ64H") for word in one.modifiers)


def width(one: Instruction) -> int:
    """The bytes that a load or store moves for each thread: 4 unless a modifier says otherwise."""
    sizes = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "16": 2, "U8": 1, "S8": 1, "8": 1}
    return next((sizes[word] for word in one.modifiers if word in sizes), 4)


# ---------------------------------------------------------------------------------------------- reading

_SECTION = re.compile(r"^\.text\.(\S+):$")
_LABEL = re.compile(r"^\s*([.$\w]+):\s*$")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)([\w.]*)\s*([^;]*);")


def read_sass(text: str) -> dict[str, tuple[tuple[Instruction, ...], dict[str, int]]]:
    """The instructions and labels of each kernel in what ``nvdisasm -c`` prints.

    The padding behind the endless branch that follows the last instruction is left out.
    """
    kernels: dict[str, tuple[list, dict]] = {}
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if section := _SECTION.match(line):
            instructions, labels = kernels.setdefault(section.group(1), ([], {}))
        elif label := _LABEL.match(line):
            labels[label.group(1)] = len(instructions)
        elif found := _INSTRUCTION.search(line):
            name, modifiers, operands = found.groups()
            words = tuple(word for word in modifiers.split(".") if word)
            instructions.append(Instruction(name, words, operands.strip()))
    return {name: (_trim(code), marks) for name, (code, marks) in kernels.items()}


def _trim(code: list[Instruction]) -> tuple[Instruction, ...]:
    end = len(code)
    while end and code[end - 1].name == "NOP":
        end -= 1
    return tuple(code[:end])


def read_log(text: str) -> dict[str, dict[str, int]]:
    """Registers, stack, spills and shared memory of each kernel in what ``ptxas -v`` prints."""

    def number(pattern: str, part: str) -> int:
        return sum(int(found) for found in re.findall(pattern, part))

    kernels = {}
    for part in text.split("Compiling entry function '")[1:]:
        kernels[part.partition("'")[0]] = {
            "registers": number(r"Used (\d+) registers", part),
            "stack": number(r"(\d+) bytes stack frame", part),
            "spills": number(r"(\d+) bytes spill", part),
            "shared": number(r"(\d+) bytes smem", part),
        }
    return kernels


# ---------------------------------------------------------------------------------------------- PTX to machine code


def separate(ptx: str, mark: str) -> str:
    """A PTX text whose names of variables and functions end in `mark`: texts with equal names can be assembled together.

    Equal names of shared memory within two kernels would be one memory, which belongs to the last of them.
    """
    kinds = "common|extern|visible|weak|global|const|shared|func"
    names = []
    for line in re.findall(rf"^\s*\.(?:{kinds})\b.*", ptx, re.MULTILINE):
        if " .entry " not in line and (name := re.search(r"([\w$]+)\s*(?:[\[;=(].*)?$", line)):
            names.append(name.group(1))
    for name in names:
        ptx = re.sub(rf"(?<![\w$.]){re.escape(name)}(?![\w$])", f"{name}_{mark}", ptx)
    return ptx


def assemble(kernels: dict[str, str], architecture: str) -> dict[str, Code]:
    """The machine code for an architecture (``sm_90``) of PTX texts, one kernel each, by the names of the kernels.

    All of them go through ptxas and nvdisasm together, because nvdisasm takes 0.3 s to start.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, ptx in enumerate(kernels.values()):
            files.append(Path(folder) / f"{number}.ptx")
            files[-1].write_text(separate(ptx, f"of_{number}"), encoding="utf-8")
        cubin = Path(folder) / "kernels.cubin"
        log = _run(tool("ptxas"), "-v", "-arch", architecture, *files, "-o", cubin).stderr
        text = _run(tool("nvdisasm"), "-c", cubin).stdout
    needs, code = read_log(log), read_sass(text)
    assert set(needs) == set(code) == set(kernels), "ptxas and nvdisasm name other kernels than were given"
    return {name: Code(**needs[name], instructions=code[name][0], labels=code[name][1]) for name in kernels}


def _run(*command) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()[:2000]}")
    return done
