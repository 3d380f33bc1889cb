"""What machine this is: GPU, driver, versions, and what nvidia-smi says of clocks and power."""

import platform
import shutil
import subprocess

from ..machine import versions

PACKAGES = (
    "numba", "numba-cuda", "cuda-bindings", "nvidia-nvvm", "numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "nvidia-cublas",
)  # fmt: skip
QUERY = (
    "name", "driver_version", "pstate", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit",
    "temperature.gpu", "utilization.gpu",
)  # fmt: skip


def is_emulated(name: str) -> bool:
    """Whether a device is that of tools/ptxemu, by its name."""
    return "PTX emulator" in name


def facts(name: str) -> dict[str, str]:
    """What every result carries, by name. `name` is that of `gdkernels.cuda.describe`."""
    from gdkernels.cuda.runtime import driver

    device = driver.use()
    major, minor = driver.version()
    _, total = driver.memory()
    cache = driver.cache_size(device) / 2**20
    found = {
        "device": name,
        "processors": f"{driver.processors(device)}, {cache:.1f} MiB cache, {total / 2**30:.1f} GiB",
        "driver": f"CUDA {major}.{minor}",
        "host": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions(PACKAGES),
    }
    if driver.capability(device) < (8, 0):
        found["left out"] = "bfloat16 and tf32, which come with compute capability 8.0"
    return found | ({} if is_emulated(name) else {"nvidia-smi": nvidia_smi()})


def nvidia_smi() -> str:
    """Clocks and power of every GPU at this moment; they change while it works."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "not installed"
    command = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    lines = [
        ", ".join(f"{name} {value}" for name, value in zip(QUERY, text.split(", "), strict=False))
        for text in done.stdout.strip().splitlines()
    ]
    return "; ".join(lines) if done.returncode == 0 else f"failed: {(done.stdout + done.stderr).strip()}"
