"""What LLVM's vectors are written with: an `Emitter` of instructions, and how many elements a vector has."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .machine import VECTOR_BITS
from .simd import I1, I32, I64, VOID, declare

PART_BITS = 128  # within which instructions move elements of longer vectors, but for few that are slow


class Emitter:
    """The vector operations of one element type at one place of the program, on whole vectors if nothing else is said."""

    def __init__(self, context, builder, element, bits=VECTOR_BITS):
        self.builder = builder
        self.element = context.get_value_type(element)
        self.bits = element.bitwidth
        self.lanes = bits // element.bitwidth
        self.part = self if bits == PART_BITS else Emitter(context, builder, element, PART_BITS)
        self.vector = ir.VectorType(self.element, self.lanes)
        self.align = element.bitwidth // 8
        self.suffix = f"v{self.lanes}f{element.bitwidth}"
        self.zero = ir.Constant(self.vector, None)

    def mask(self, live):
        """A mask whose first `live` lanes (0 to all) are set."""
        builder = self.builder
        lane = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return builder.icmp_signed("<", lane, self.spread(live, I64))

    def spread(self, scalar, kind):
        """A vector of equal numbers."""
        vector = ir.VectorType(kind, self.lanes)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), None)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    def at(self, pointer, offset):
        """pointer + offset elements."""
        return self.builder.gep(pointer, [offset], inbounds=True)

    def load(self, pointer, mask=None):
        """The vector at a pointer; lanes that are masked out are 0 and are not read."""
        place = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            return self.builder.load(place, align=self.align)
        kinds = [self.vector.as_pointer(), I32, ir.VectorType(I1, self.lanes), self.vector]
        function = declare(self.builder.module, f"llvm.masked.load.{self.suffix}.p0", self.vector, kinds)
        return self.builder.call(function, [place, I32(self.align), mask, self.zero])

    def store(self, value, pointer, mask=None):
        """Write a vector; lanes that are masked out are left as they are."""
        place = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, place, align=self.align)
            return
        kinds = [self.vector, self.vector.as_pointer(), I32, ir.VectorType(I1, self.lanes)]
        function = declare(self.builder.module, f"llvm.masked.store.{self.suffix}.p0", VOID, kinds)
        self.builder.call(function, [value, place, I32(self.align), mask])

    def prefetch(self, pointer, write, locality=3):
        """Have a cache line at hand that will be read, or written, soon; locality 3: in all caches, 2: not the first."""
        byte = ir.IntType(8).as_pointer()
        function = declare(self.builder.module, "llvm.prefetch.p0", VOID, [byte, I32, I32, I32])
        self.builder.call(
            function, [self.builder.bitcast(pointer, byte), I32(int(write)), I32(locality), I32(1)]
        )

    def broadcast(self, pointer):
        """The number at a pointer, in every lane."""
        return self.spread(self.builder.load(pointer, align=self.align), self.element)

    def multiply_add(self, left, right, addend):
        """left * right + addend, fused where the CPU can."""
        function = declare(self.builder.module, f"llvm.fmuladd.{self.suffix}", self.vector, [self.vector] * 3)
        return self.builder.call(function, [left, right, addend])

    def total(self, vector):
        """Sum of the lanes, pairwise."""
        width = self.lanes
        while width > 1:
            width //= 2
            swap = [lane + width if lane < width else lane for lane in range(self.lanes)]
            other = self.builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(I32, self.lanes), swap)
            )
            vector = self.builder.fadd(vector, other)
        return self.builder.extract_element(vector, I32(0))

    def totals(self, vectors):
        """The sum of the lanes of each of some vectors, as numbers.

        Two vectors are added up together: halves of both side by side, until one vector holds the sums of as many vectors as
        it has lanes. That takes two shuffles and an addition for each of them, where each alone takes log₂(lanes) of both.
        """
        found = []
        for first in range(0, len(vectors), self.lanes):
            some = vectors[first : first + self.lanes]
            count = 1 << (len(some) - 1).bit_length()
            some = [*some, *[self.zero] * (count - len(some))]
            # Lane numbers: which vector of the group a lane belongs to is `owner`, and all lanes of an owner are its parts.
            owners = [[index] * self.lanes for index in range(count)]
            while len(some) > 1:
                pairs = list(zip(some[::2], some[1::2], owners[::2], owners[1::2], strict=True))
                some, owners = [], []
                for left, right, left_owner, right_owner in pairs:
                    low, high, owner = self._halves(left_owner, right_owner)
                    some.append(
                        self.builder.fadd(self._shuffled(left, right, low), self._shuffled(left, right, high))
                    )
                    owners.append(owner)
            vector, owner = some[0], owners[0]
            distance = self.lanes // count
            while (
                distance > 1
            ):  # fewer vectors than lanes: each still has `distance` parts, in lanes that follow
                distance //= 2
                swapped = [lane ^ distance for lane in range(self.lanes)]
                vector = self.builder.fadd(vector, self._shuffled(vector, vector, swapped))
            found += [
                self.builder.extract_element(vector, I32(owner.index(index)))
                for index in range(min(count, len(vectors) - first))
            ]
        return found

    def _halves(self, left, right):
        """Lanes of two vectors (those of the second counted on) whose pairwise addition halves the parts of each owner, and
        the owners of the results. Parts of an owner stand in lanes that follow one another."""
        low, high, owners = [], [], []
        for base, owner_of in ((0, left), (self.lanes, right)):
            for index in dict.fromkeys(owner_of):
                places = [base + lane for lane, owner in enumerate(owner_of) if owner == index]
                half = len(places) // 2
                low += places[:half]
                high += places[half:]
                owners += [index] * half
        return low, high, owners

    def _shuffled(self, left, right, lanes):
        """A vector of these lanes of two, those of the second counted on."""
        return self.builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, self.lanes), lanes))

    def repeat(self, count, pointers, steps, values, body):
        """Run ``values = body(pointers, values)`` `count` times (0 too); pointers move on by `steps` each time."""
        builder = self.builder
        before = builder.block
        loop = builder.append_basic_block("k")
        after = builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), loop, after)
        builder.position_at_end(loop)
        left = builder.phi(I64)
        places = [builder.phi(pointer.type) for pointer in pointers]
        current = [builder.phi(self.vector) for _ in values]
        results = body(places, current)
        fewer = builder.sub(left, I64(1))
        moved = [self.at(place, step) for place, step in zip(places, steps, strict=True)]
        last = builder.block
        left.add_incoming(count, before)
        left.add_incoming(fewer, last)
        for phi, start, then in zip(
            places + current, list(pointers) + list(values), moved + results, strict=True
        ):
            phi.add_incoming(start, before)
            phi.add_incoming(then, last)
        builder.cbranch(builder.icmp_signed(">", fewer, I64(0)), loop, after)
        builder.position_at_end(after)
        merged = []
        for start, then in zip(values, results, strict=True):
            phi = builder.phi(self.vector)
            phi.add_incoming(start, before)
            phi.add_incoming(then, last)
            merged.append(phi)
        return merged

    def row(self, index, live):
        """Row `index`, or the last live row where there are fewer."""
        if live is None:
            return I64(index)
        builder = self.builder
        beyond = builder.icmp_signed(">=", I64(index), live)
        return builder.select(beyond, builder.sub(live, I64(1)), I64(index))

    def when_live(self, index, live):
        """Code that only runs for a live row."""
        return self.builder.if_then(self.builder.icmp_signed("<", I64(index), live))


@intrinsic
def lanes(typingctx, pointer):
    """Elements in one vector register, a constant of the element type."""

    def generate(context, builder, signature, arguments):
        return I64(VECTOR_BITS // signature.args[0].dtype.bitwidth)

    return types.int64(pointer), generate


@intrinsic
def prefetch(typingctx, pointer):
    """Have the cache line at hand that will be read soon."""

    def generate(context, builder, signature, arguments):
        Emitter(context, builder, signature.args[0].dtype).prefetch(arguments[0], False)
        return context.get_dummy_value()

    return types.void(pointer), generate
