"""Device memory.  The pool keeps nothing: an array ends where its allocation ends, so that kernels are held to it."""

from cuda.bindings import driver

from . import runtime


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Memory:
    """One allocation, returned to its pool when nothing refers to it."""

    def __init__(self, pool, ptr, size):
        self.pool, self.ptr, self.size = pool, ptr, size

    def __del__(self):
        self.pool.returned(self)


class UnownedMemory:
    """Memory of somebody else, who is kept."""

    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner = int(ptr), size, owner


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, (mem.ptr + offset if mem else 0)


class MemoryPool:
    """Memory that is given back is freed at the next allocation, since a stream may be capturing before."""

    def __init__(self):
        self.used, self.waiting, self.limit = 0, [], 0

    def malloc(self, size):
        runtime.ready()
        self.free_all_blocks()
        if self.limit and self.used + size > self.limit:
            raise OutOfMemoryError(size, self.used)
        status, ptr = driver.cuMemAlloc(max(size, 1))
        if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemoryError(size, self.used)
        self.used += size
        return MemoryPointer(Memory(self, int(runtime.check((status, ptr))), size), 0)

    def returned(self, memory):
        self.used -= memory.size
        self.waiting.append((memory.ptr, memory.size))

    def free_all_blocks(self, stream=None):
        while self.waiting:
            runtime.check(driver.cuMemFree(self.waiting.pop()[0]))

    def used_bytes(self):
        return self.used

    def free_bytes(self):
        return sum(size for _, size in self.waiting)

    def total_bytes(self):
        return self.used + self.free_bytes()

    def n_free_blocks(self):
        return len(self.waiting)

    def set_limit(self, size=0):
        self.limit = size

    def get_limit(self):
        return self.limit


pool = MemoryPool()


def alloc(size):
    return pool.malloc(size)
