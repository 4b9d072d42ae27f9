//! AMX: eight registers that are tiles of sixteen rows of 64 bytes. In assembly, since its intrinsics are not stable.

use super::Block;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// Whether the processor has AMX for bf16 and the system lets this process use it.
pub(super) fn is_there() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// The tiles' configuration and the tiles are part of what the system saves.
    const SAVED: u64 = 3 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let found = __cpuid_count(7, 0).edx;
    if found & AMX_BF16 == 0 || found & AMX_TILE == 0 {
        return false;
    }
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: register 0 is there with the feature.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: `OSXSAVE` says that the instruction may be used.
    unsafe { saved() & SAVED == SAVED && permitted() }
}

/// Asks Linux for the tiles, whose 8 KiB it saves for no thread of a process that did not ask.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let mut answer = ARCH_PRCTL;
    // SAFETY: the call touches no memory; it gives back 0 where the permission is granted, and an error on systems that do not know it.
    unsafe {
        asm!(
            "syscall",
            inout("rax") answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Other systems have no such call that is known here.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The tiles' sizes as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

static WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Makes all eight tiles whole ones.
///
/// # Safety
/// [`is_there`].
pub(super) unsafe fn configure() {
    // SAFETY: the caller's promise; it reads 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly)) }
}

/// Empties the tiles, so that the system has none to save.
///
/// # Safety
/// [`is_there`].
pub(super) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// What the assembly reads.
#[repr(C)]
struct Arguments {
    a: [*const u16; 2],
    a_step: usize,
    segments: *const super::Segment,
    count: usize,
    b: *const u16,
    c: [*mut f32; 2],
    c_step: usize,
    accumulate: usize,
}

/// Two tiles of rows by two of columns: four products for four loads, so that the multipliers are the limit where the tiles come from
/// the first-level cache.
///
/// # Safety
/// As [`super::Session::multiply`]'s; the tiles are configured.
pub(super) unsafe fn multiply(block: &Block) {
    let arguments = Arguments {
        a: [block.a, block.a.wrapping_add(16 * block.a_step)],
        a_step: 2 * block.a_step,
        segments: block.segments.as_ptr(),
        count: block.segments.len(),
        b: block.b,
        c: [block.c, block.c.wrapping_add(16 * block.c_step)],
        c_step: 4 * block.c_step,
        accumulate: usize::from(block.accumulate),
    };
    if block.segments.iter().any(|segment| segment.steps == 0) || block.segments.is_empty() {
        return;
    }
    // SAFETY: the caller's promise. The assembly reads the arguments at the offsets of their fields, and touches no register that it does
    // not name.
    unsafe {
        if block.is_tall {
            tall(&arguments);
        } else {
            flat(&arguments);
        }
    }
}

/// # Safety
/// As [`multiply`]'s, for 32 rows.
unsafe fn tall(arguments: &Arguments) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            // Sums: zeros, or what is there.
            "cmp qword ptr [{p} + 72], 0",
            "jne 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 3f",
            "2:",
            "mov {a0}, [{p} + 48]",
            "mov {a1}, [{p} + 56]",
            "mov {steps}, [{p} + 64]",
            "tileloadd tmm0, [{a0} + {steps}*1]",
            "tileloadd tmm1, [{a0} + {steps}*1 + 64]",
            "tileloadd tmm2, [{a1} + {steps}*1]",
            "tileloadd tmm3, [{a1} + {steps}*1 + 64]",
            "3:",
            "mov {segment}, [{p} + 24]",
            "mov {count}, [{p} + 32]",
            "mov {b}, [{p} + 40]",
            "mov {a_step}, [{p} + 16]",
            "mov {b_step:e}, 128",
            "4:",
            "mov {a0}, [{segment}]",
            "mov {steps}, [{segment} + 8]",
            "mov {a1}, {a0}",
            "add {a0}, [{p}]",
            "add {a1}, [{p} + 8]",
            "5:",
            "tileloadd tmm4, [{a0} + {a_step}*1]",
            "tileloadd tmm6, [{b} + {b_step}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {b_step}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {a_step}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 5b",
            "add {segment}, 16",
            "dec {count}",
            "jnz 4b",
            "mov {a0}, [{p} + 48]",
            "mov {a1}, [{p} + 56]",
            "mov {steps}, [{p} + 64]",
            "tilestored [{a0} + {steps}*1], tmm0",
            "tilestored [{a0} + {steps}*1 + 64], tmm1",
            "tilestored [{a1} + {steps}*1], tmm2",
            "tilestored [{a1} + {steps}*1 + 64], tmm3",
            p = in(reg) arguments,
            a0 = out(reg) _,
            a1 = out(reg) _,
            steps = out(reg) _,
            segment = out(reg) _,
            count = out(reg) _,
            b = out(reg) _,
            a_step = out(reg) _,
            b_step = out(reg) _,
            options(nostack),
        );
    }
}

/// # Safety
/// As [`multiply`]'s, for 16 rows.
unsafe fn flat(arguments: &Arguments) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "cmp qword ptr [{p} + 72], 0",
            "jne 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "jmp 3f",
            "2:",
            "mov {a0}, [{p} + 48]",
            "mov {steps}, [{p} + 64]",
            "tileloadd tmm0, [{a0} + {steps}*1]",
            "tileloadd tmm1, [{a0} + {steps}*1 + 64]",
            "3:",
            "mov {segment}, [{p} + 24]",
            "mov {count}, [{p} + 32]",
            "mov {b}, [{p} + 40]",
            "mov {a_step}, [{p} + 16]",
            "mov {b_step:e}, 128",
            "4:",
            "mov {a0}, [{segment}]",
            "mov {steps}, [{segment} + 8]",
            "add {a0}, [{p}]",
            "5:",
            "tileloadd tmm4, [{a0} + {a_step}*1]",
            "tileloadd tmm6, [{b} + {b_step}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {b_step}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a0}, 64",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 5b",
            "add {segment}, 16",
            "dec {count}",
            "jnz 4b",
            "mov {a0}, [{p} + 48]",
            "mov {steps}, [{p} + 64]",
            "tilestored [{a0} + {steps}*1], tmm0",
            "tilestored [{a0} + {steps}*1 + 64], tmm1",
            p = in(reg) arguments,
            a0 = out(reg) _,
            steps = out(reg) _,
            segment = out(reg) _,
            count = out(reg) _,
            b = out(reg) _,
            a_step = out(reg) _,
            b_step = out(reg) _,
            options(nostack),
        );
    }
}
