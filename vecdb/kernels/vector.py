"""A 512-bit vector type for numba, and the operations on it that the kernels use.

numba has no vector type, but it lets a module define one: a value of type ``F32`` is an LLVM
``<16 x float>``, and the functions below are single LLVM instructions over such values. Code that
uses them reads like numba and compiles to the instructions it names; on a CPU with AVX-512 that is
512-bit code whatever width LLVM prefers there (icelake and sapphirerapids prefer 256).

Memory is reached by address: ``address(array)`` plus a byte offset. Nothing here checks bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "F32",
    "I32",
    "I64",
    "U8",
    "add_f32",
    "add_i32",
    "address",
    "and_u8",
    "below_i32",
    "beside_f32",
    "beyond_f32",
    "bits",
    "blend_u8",
    "dpbusd",
    "even_i64",
    "fetch_add",
    "floor_f32",
    "fma",
    "head_f16",
    "head_f32",
    "load_f16",
    "load_f32",
    "load_i64",
    "load_u8",
    "max_f32",
    "max_i64",
    "max_of_f32",
    "min_i64",
    "mul_f32",
    "or_u8",
    "permute_u8",
    "pointer",
    "prefetch",
    "read_f32",
    "read_i32",
    "read_i64",
    "read_u8",
    "read_u16",
    "repeat_flipped",
    "shift_u8",
    "splat_f32",
    "splat_i64",
    "splat_u8",
    "store_f32",
    "store_i64",
    "store_u8x16",
    "sub_f32",
    "sum_f32",
    "sum_i32",
    "to_f32",
    "trailing_zeros",
    "write_f32",
    "write_i32",
    "write_i64",
    "write_u8",
    "xor_u8",
    "zero_i32",
]  # fmt: skip

_F32, _I8, _I16, _I32, _I64 = (
    ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
)  # fmt: skip
_HALF = ir.VectorType(ir.HalfType(), 16)


class Vector(types.Type):  # type: ignore[misc]
    """A numba type whose values are one LLVM vector."""

    def __init__(self, name: str, element: ir.Type, lanes: int) -> None:
        super().__init__(name=name)
        self.ir = ir.VectorType(element, lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.ir)


F32 = Vector("vecdb.f32x16", _F32, 16)
I32 = Vector("vecdb.i32x16", _I32, 16)
I64 = Vector("vecdb.i64x8", _I64, 8)
U8 = Vector("vecdb.u8x64", _I8, 64)


def _operation(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Turn ``emit(builder, *values) -> value`` into a function that kernels can call."""

    def wrap(emit: Callable[..., Any]) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            made = emit(builder, *values)
            return _context.get_dummy_value() if result is types.void else made

        signature = result(*arguments)
        typed = (
            lambda _ctx: (signature, codegen),
            lambda _ctx, a: (signature, codegen),
            lambda _ctx, a, b: (signature, codegen),
            lambda _ctx, a, b, c: (signature, codegen),
        )[len(arguments)]
        typed.__name__, typed.__doc__ = emit.__name__, emit.__doc__
        return intrinsic(typed)

    return wrap


def _call(builder: Any, name: str, result: ir.Type, *values: Any, fastmath: Any = ()) -> Any:
    kind = ir.FunctionType(result, [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, values, fastmath=fastmath)


def _splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    lanes = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), lanes)


def _load(builder: Any, at: Any, kind: ir.Type) -> Any:
    return builder.load(builder.inttoptr(at, kind.as_pointer()), align=1)


def _masked(builder: Any, at: Any, mask: Any, element: ir.Type, name: str) -> Any:
    kind = ir.VectorType(element, 16)
    lanes = builder.bitcast(builder.trunc(mask, _I16), ir.VectorType(ir.IntType(1), 16))
    pointer = builder.inttoptr(at, kind.as_pointer())
    return _call(builder, name, kind, pointer, _I32(1), lanes, ir.Constant(kind, None))


def _store(builder: Any, at: Any, value: Any) -> None:
    builder.store(value, builder.inttoptr(at, value.type.as_pointer()), align=1)


@intrinsic  # type: ignore[untyped-decorator]
def address(_ctx: Any, array: Any) -> Any:
    """Address of an array's first byte."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        made = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0])
        return builder.ptrtoint(made.data, _I64)

    return types.int64(array), codegen


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_ctx: Any, at: Any) -> Any:
    """An address as a pointer to bytes, of which numba makes arrays."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], _I8.as_pointer())

    return types.CPointer(types.uint8)(at), codegen


# --- memory ---------------------------------------------------------------------------------


@_operation(types.void, types.int64)
def prefetch(builder: Any, at: Any) -> Any:
    """Ask for one line for reading, into the second cache level.

    Its queue of misses is longer than the first level's 24: 12 random rows of 784 floats, asked for
    at once, took 3.4 us against 5.2, and searches of Fashion were 1.15 to 1.3 times as fast.
    """
    pointer = builder.inttoptr(at, _I8.as_pointer())
    return _call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, _I32(0), _I32(2), _I32(1))


@_operation(F32, types.int64)
def load_f32(builder: Any, at: Any) -> Any:
    """16 floats."""
    return _load(builder, at, F32.ir)


@_operation(F32, types.int64)
def load_f16(builder: Any, at: Any) -> Any:
    """16 half floats, widened."""
    return builder.fpext(_load(builder, at, _HALF), F32.ir)


@_operation(F32, types.int64, types.int64)
def head_f32(builder: Any, at: Any, mask: Any) -> Any:
    """The floats whose bit of `mask` is set, zero elsewhere; other memory is not touched."""
    return _masked(builder, at, mask, _F32, "llvm.masked.load.v16f32.p0")


@_operation(F32, types.int64, types.int64)
def head_f16(builder: Any, at: Any, mask: Any) -> Any:
    """The half floats whose bit of `mask` is set, widened; zero elsewhere."""
    short = _masked(builder, at, mask, _I16, "llvm.masked.load.v16i16.p0")
    return builder.fpext(builder.bitcast(short, _HALF), F32.ir)


@_operation(U8, types.int64)
def load_u8(builder: Any, at: Any) -> Any:
    """64 bytes."""
    return _load(builder, at, U8.ir)


@_operation(U8, types.int64)
def repeat_flipped(builder: Any, at: Any) -> Any:
    """Four bytes minus 128, 16 times over (flipped before they are spread: LLVM 22 hangs else)."""
    word = builder.xor(_load(builder, at, _I32), _I32(0x80808080 - (1 << 32)))
    return builder.bitcast(_splat(builder, word, I32.ir), U8.ir)


@_operation(I64, types.int64)
def load_i64(builder: Any, at: Any) -> Any:
    """8 integers of 64 bits."""
    return _load(builder, at, I64.ir)


@_operation(types.void, types.int64, F32)
def store_f32(builder: Any, at: Any, x: Any) -> Any:
    """Store 16 floats."""
    return _store(builder, at, x)


@_operation(types.void, types.int64, I64)
def store_i64(builder: Any, at: Any, x: Any) -> Any:
    """Store 8 integers of 64 bits."""
    return _store(builder, at, x)


@_operation(types.void, types.int64, F32)
def store_u8x16(builder: Any, at: Any, x: Any) -> Any:
    """Store 16 floats (0 ... 255) as 16 bytes, truncated."""
    wide = builder.fptosi(x, I32.ir)
    return _store(builder, at, builder.trunc(wide, ir.VectorType(_I8, 16)))


# --- single values --------------------------------------------------------------------------


def _scalar(name: str, kind: Any, element: ir.Type) -> tuple[Any, Any]:
    """The pair (read, write) of a type of number."""

    def read(builder: Any, at: Any) -> Any:
        return _load(builder, at, element)

    def write(builder: Any, at: Any, value: Any) -> Any:
        return _store(builder, at, value)

    read.__name__, read.__doc__ = f"read_{name}", "The value at an address."
    write.__name__, write.__doc__ = f"write_{name}", "Store a value at an address."
    return _operation(kind, types.int64)(read), _operation(types.void, types.int64, kind)(write)


read_u8, write_u8 = _scalar("u8", types.uint8, _I8)
read_u16, _ = _scalar("u16", types.uint16, _I16)
read_i32, write_i32 = _scalar("i32", types.int32, _I32)
read_i64, write_i64 = _scalar("i64", types.int64, _I64)
read_f32, write_f32 = _scalar("f32", types.float32, _F32)


@_operation(types.int64, types.int64, types.int64)
def fetch_add(builder: Any, at: Any, count: Any) -> Any:
    """The 64-bit integer at an aligned address, to which `count` is added in one atomic step."""
    return builder.atomic_rmw("add", builder.inttoptr(at, _I64.as_pointer()), count, "monotonic")


# --- float32 --------------------------------------------------------------------------------


@_operation(F32, types.float32)
def splat_f32(builder: Any, x: Any) -> Any:
    """The same float in all lanes."""
    return _splat(builder, x, F32.ir)


@_operation(F32, F32, F32, F32)
def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z."""
    return _call(builder, "llvm.fma.v16f32", F32.ir, x, y, z)


@_operation(F32, F32, F32)
def add_f32(builder: Any, x: Any, y: Any) -> Any:
    """x + y."""
    return builder.fadd(x, y)


@_operation(F32, F32, F32)
def sub_f32(builder: Any, x: Any, y: Any) -> Any:
    """x - y."""
    return builder.fsub(x, y)


@_operation(F32, F32, F32)
def mul_f32(builder: Any, x: Any, y: Any) -> Any:
    """x * y."""
    return builder.fmul(x, y)


@_operation(F32, F32, F32)
def max_f32(builder: Any, x: Any, y: Any) -> Any:
    """The greater of two floats; a NaN in `x` stays."""
    return builder.select(builder.fcmp_ordered("<", x, y), y, x)


def _beside(name: str, step: int) -> Any:
    def moved(builder: Any, x: Any) -> Any:
        lanes = ir.Constant(ir.VectorType(_I32, 16), [i ^ step for i in range(16)])
        return builder.shuffle_vector(x, x, lanes)

    moved.__name__, moved.__doc__ = name, f"Lane i gets the value of lane i ^ {step}."
    return _operation(F32, F32)(moved)


beside_f32, beyond_f32 = _beside("beside_f32", 1), _beside("beyond_f32", 2)


@_operation(F32, F32)
def floor_f32(builder: Any, x: Any) -> Any:
    """The greatest whole number below each float."""
    return _call(builder, "llvm.floor.v16f32", F32.ir, x)


@_operation(types.float32, F32)
def max_of_f32(builder: Any, x: Any) -> Any:
    """The greatest of the 16 lanes."""
    return _call(builder, "llvm.vector.reduce.fmax.v16f32", _F32, x)


@_operation(types.float32, F32)
def sum_f32(builder: Any, x: Any) -> Any:
    """Sum of the 16 lanes."""
    return _call(
        builder, "llvm.vector.reduce.fadd.v16f32", _F32, _F32(0.0), x, fastmath=("reassoc",)
    )


# --- integers -------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def zero_i32(_ctx: Any) -> Any:
    """16 zeros."""
    return I32(), lambda _context, _builder, _signature, _values: ir.Constant(I32.ir, None)


@_operation(I32, I32, I32)
def add_i32(builder: Any, x: Any, y: Any) -> Any:
    """x + y."""
    return builder.add(x, y)


@_operation(types.int64, I32)
def sum_i32(builder: Any, x: Any) -> Any:
    """Sum of the 16 lanes."""
    return builder.sext(_call(builder, "llvm.vector.reduce.add.v16i32", _I32, x), _I64)


@_operation(F32, I32)
def to_f32(builder: Any, x: Any) -> Any:
    """Integers as floats."""
    return builder.sitofp(x, F32.ir)


@_operation(types.int64, I32, types.int64)
def below_i32(builder: Any, x: Any, limit: Any) -> Any:
    """A bit per lane: x < limit."""
    wide = _splat(builder, builder.trunc(limit, _I32), I32.ir)
    return builder.zext(builder.bitcast(builder.icmp_signed("<", x, wide), _I16), _I64)


@_operation(I32, F32)
def bits(builder: Any, x: Any) -> Any:
    """The bit patterns of 16 floats."""
    return builder.bitcast(x, I32.ir)


@_operation(I64, types.int64)
def splat_i64(builder: Any, x: Any) -> Any:
    """The same integer in all 8 lanes."""
    return _splat(builder, x, I64.ir)


@_operation(I64, I64, I64)
def min_i64(builder: Any, x: Any, y: Any) -> Any:
    """The lesser of two integers."""
    return builder.select(builder.icmp_signed("<", x, y), x, y)


@_operation(I64, I64, I64)
def max_i64(builder: Any, x: Any, y: Any) -> Any:
    """The greater of two integers."""
    return builder.select(builder.icmp_signed(">", x, y), x, y)


@_operation(types.int64, I64)
def even_i64(builder: Any, x: Any) -> Any:
    """A bit per lane: the integer is even."""
    low = builder.trunc(x, ir.VectorType(ir.IntType(1), 8))
    return builder.zext(builder.bitcast(builder.not_(low), _I8), _I64)


@_operation(types.int64, types.int64)
def trailing_zeros(builder: Any, x: Any) -> Any:
    """Index of the lowest set bit; 64 for zero."""
    return _call(builder, "llvm.cttz.i64", _I64, x, ir.IntType(1)(0))


# --- bytes ----------------------------------------------------------------------------------


@_operation(U8, types.uint8)
def splat_u8(builder: Any, x: Any) -> Any:
    """The same byte in all 64 lanes."""
    return _splat(builder, x, U8.ir)


@_operation(U8, U8, U8)
def and_u8(builder: Any, x: Any, y: Any) -> Any:
    """x & y."""
    return builder.and_(x, y)


@_operation(U8, U8, U8)
def or_u8(builder: Any, x: Any, y: Any) -> Any:
    """x | y."""
    return builder.or_(x, y)


@_operation(U8, U8, U8)
def xor_u8(builder: Any, x: Any, y: Any) -> Any:
    """x ^ y."""
    return builder.xor(x, y)


@_operation(U8, U8)
def shift_u8(builder: Any, x: Any) -> Any:
    """Every pair of bytes shifted right by four bits: mask the result to get the high nibbles."""
    words = ir.VectorType(_I16, 32)
    fours = ir.Constant(words, [4] * 32)
    return builder.bitcast(builder.lshr(builder.bitcast(x, words), fours), U8.ir)


@_operation(U8, U8, types.int64, U8)
def blend_u8(builder: Any, x: Any, mask: Any, y: Any) -> Any:
    """Lanes of `x` where the bit of `mask` is set, of `y` elsewhere."""
    return builder.select(builder.bitcast(mask, ir.VectorType(ir.IntType(1), 64)), x, y)


@_operation(U8, U8, U8)
def permute_u8(builder: Any, table: Any, index: Any) -> Any:
    """table[index & 63] for 64 bytes (vpermb; AVX-512 VBMI)."""
    return _call(builder, "llvm.x86.avx512.permvar.qi.512", U8.ir, table, index)


@_operation(I32, I32, U8, U8)
def dpbusd(builder: Any, acc: Any, x: Any, y: Any) -> Any:
    """acc + four products of unsigned by signed bytes per lane (AVX-512 VNNI)."""
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", I32.ir, acc, x, y)
