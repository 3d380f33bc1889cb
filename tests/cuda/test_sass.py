"""Machine code is read right: on short texts in the words of ptxas and nvdisasm, and once through both programs."""

import pytest

from tools.gate import sass

LOG = """\
ptxas info    : 56 bytes gmem, 56 bytes cmem[4]
ptxas info    : Compiling entry function 'lean' for 'sm_80'
ptxas info    : Function properties for lean
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 4096 bytes smem, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'spilled' for 'sm_80'
ptxas info    : Function properties for spilled
    24 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 376 bytes cmem[0], 88 bytes cmem[2]
"""

SASS = """\
//--------------------- .text.product --------------------------
        .section        .text.product,"ax",@progbits
        .global         product
product:
.text.product:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_4:
        /*0010*/                   LDG.E.128.CONSTANT R8, [R2.64] ;
.L_x_1:
        /*0020*/                   LDS.128 R4, [R0] ;
        /*0030*/                   FFMA R12, R8, R4, R12 ;
        /*0040*/                   FFMA.FTZ R13, R9, R5.reuse, R13 ;
        /*0050*/              @!P0 BRA `(.L_x_1) ;
        /*0060*/                   IADD3 R3, R3, 0x1, RZ ;
        /*0070*/               @P1 BRA `(.L_x_4) ;
.L_x_2:
        /*0080*/                   FADD R0, R0, R1 ;
        /*0090*/               @P0 CALL.REL.NOINC `(.L_x_3) ;
        /*00a0*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*00b0*/                   STG.E.64 [R4.64], R8 ;
        /*00c0*/                   STG.E [R4.64+0x8], R8 ;
        /*00d0*/              @!PT STG.E.U16 [R4.64+0xc], R8 ;
        /*00e0*/                   EXIT ;
.L_x_5:
        /*00f0*/                   BRA `(.L_x_5);
        /*0100*/                   NOP;
        /*0110*/                   NOP;

//--------------------- .text.careless --------------------------
careless:
.text.careless:
        /*0000*/                   F2F.F64.F32 R4, R2 ;
        /*0010*/                   DMUL R4, R4, 0.5 ;
        /*0020*/                   MUFU.RCP64H R7, R5 ;
        /*0030*/                   DSETP.GEU.AND P0, PT, R4, RZ, PT ;
        /*0040*/                   STL [R1], R2 ;
        /*0050*/             @!UP0 LDL.64 R2, [R3] ;
        /*0060*/                   CALL.REL.NOINC `($careless$__internal_0_$__cuda_sm20_div_rn_f64_full) ;
        /*0070*/                   CALL.ABS.NOINC R2 ;
        /*0080*/                   EXIT ;
$careless$__internal_0_$__cuda_sm20_div_rn_f64_full:
        /*0090*/                   RET.REL.NODEC R12 `(careless) ;
"""


@pytest.fixture(scope="module")
def codes():
    return {
        name: sass.Code(1, 0, 0, 0, instructions, labels)
        for name, (instructions, labels) in sass.read_sass(SASS).items()
    }


def test_needs_are_read_for_each_kernel():
    assert sass.read_log(LOG) == {
        "lean": {"registers": 14, "stack": 0, "spills": 0, "shared": 4096},
        "spilled": {"registers": 32, "stack": 24, "spills": 24, "shared": 0},
    }


def test_instructions_are_read_for_each_kernel(codes):
    assert set(codes) == {"product", "careless"}
    assert codes["product"].instructions[1] == ("LDG", ("E", "128", "CONSTANT"), "R8, [R2.64]")
    assert codes["product"].count("FFMA") == 2 and codes["product"].count("NOP") == 0
    assert codes["product"].labels[".L_x_1"] == 2


def test_widths_of_accesses(codes):
    assert codes["product"].widths("LDG") == {16: 1}
    assert codes["product"].widths("STG") == {8: 1, 4: 1, 2: 1}


def test_innermost_loops_only(codes):
    # .L_x_1 to its branch, .L_x_2 to its branch; .L_x_4 is the loop around the first, .L_x_5 the endless end
    assert codes["product"].loops() == [range(2, 6), range(8, 11)]


def test_share_is_that_of_the_loop_with_most(codes):
    assert codes["product"].share("FFMA") == 2 / 4
    assert codes["product"].share("FADD") == 1 / 3
    assert codes["careless"].share("FFMA") == 0


def test_float64_is_seen(codes):
    assert codes["product"].doubles() == 0
    assert codes["careless"].doubles() == 4


def test_local_memory_is_seen(codes):
    assert codes["product"].count("LDL", "STL") == 0
    assert codes["careless"].count("LDL", "STL") == 2


def test_calls_are_seen_and_jumps_are_none(codes):
    assert codes["product"].calls() == []
    assert codes["careless"].calls() == ["$careless$__internal_0_$__cuda_sm20_div_rn_f64_full", "by address"]


PTX = """\
.version 8.0
.target sm_80
.address_size 64
.common .global .align 8 .u64 environment;
.global .align 4 .b8 table[4] = {1, 2, 3, 4};
.visible .entry NAME(
	.param .u64 NAME_param_0
)
.maxntid 32, 1, 1
{
	.reg .b32 	%r<3>;
	.reg .b64 	%rd<3>;
	.shared .align 16 .b8 shared[SIZE];
	ld.param.u64 	%rd1, [NAME_param_0];
	mov.u32 	%r1, %tid.x;
	st.shared.u32 	[shared+4], %r1;
	bar.sync 	0;
	ld.shared.u32 	%r2, [shared];
	ld.global.u32 	%r1, [table];
	add.u32 	%r2, %r2, %r1;
	cvta.to.global.u64 	%rd2, %rd1;
	st.global.u32 	[%rd2], %r2;
	ret;
}
"""


def test_names_are_told_apart():
    ptx = sass.separate(PTX.replace("NAME", "add").replace("SIZE", "64"), "of_7")
    assert "environment_of_7;" in ptx and "table_of_7[4]" in ptx and "[table_of_7];" in ptx
    assert ".shared .align 16 .b8 shared_of_7[64]" in ptx and "st.shared.u32 	[shared_of_7+4]" in ptx
    assert ".entry add(" in ptx


def test_kernels_assembled_together_are_those_assembled_alone():
    try:
        sass.tool("ptxas"), sass.tool("nvdisasm")
    except sass.MissingTool as error:
        pytest.skip(str(error))
    texts = {
        name: PTX.replace("NAME", name).replace("SIZE", size) for name, size in (("a", "64"), ("b", "96"))
    }
    together = sass.assemble(texts, "sm_80")
    assert (together["a"].shared, together["b"].shared) == (64, 96)
    for name, text in texts.items():
        alone = sass.assemble({name: text}, "sm_80")[name]
        assert alone[:4] == together[name][:4]
        assert [one[:2] for one in alone.instructions] == [one[:2] for one in together[name].instructions]
    assert together["a"].widths("STG") == {4: 1}


def test_missing_wheels_are_named(monkeypatch):
    monkeypatch.setitem(sass.WHEELS, "ptxas", "nvidia-cuda-nvcc-that-nobody-has")
    sass.tool.cache_clear()
    with pytest.raises(sass.MissingTool, match=r"nvcc-that-nobody-has \(for ptxas\) is not installed"):
        sass.tool("ptxas")
    sass.tool.cache_clear()
