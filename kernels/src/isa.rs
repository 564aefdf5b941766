//! Which instruction sets this CPU has, chosen once at run time.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use crate::simd::neon::Neon;
use crate::simd::{SimdOp, portable::Portable};
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2::Avx2, avx512::Avx512};

/// An instruction set this CPU is known to have.
///
/// All variants but the portable one carry a token that can only be made by asking the CPU, so holding an `Isa` is the
/// proof that its instructions may be executed.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// Any CPU: the `wide` crate at the compiler's baseline.
    Portable(Portable),
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    /// The same with AVX-512-BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true>),
    /// AArch64 with NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// The fastest instruction set of this CPU, or the one named by `KERNELS_FORCE_ISA` (`portable`, `avx2`,
    /// `avx512`, `avx512bf16`, `neon`). Asked once per process.
    ///
    /// # Panics
    /// `KERNELS_FORCE_ISA` names an instruction set that this CPU lacks: whoever forces one wants to know what it does, and
    /// would be told what another one does. Programs ask [`Isa::forced`] first.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let best = || *Isa::available().last().expect("the portable tier is always there");
            Isa::forced().unwrap_or_else(|why| panic!("{why}")).unwrap_or_else(best)
        })
    }

    /// The instruction set that `KERNELS_FORCE_ISA` asks for, if it is set.
    ///
    /// # Errors
    /// It names something this CPU does not have; the message says what it has.
    pub fn forced() -> Result<Option<Isa>, String> {
        let Ok(name) = std::env::var("KERNELS_FORCE_ISA") else { return Ok(None) };
        let available = Isa::available();
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        match available.iter().find(|isa| isa.name() == name) {
            Some(isa) => Ok(Some(*isa)),
            None => Err(format!("KERNELS_FORCE_ISA={name}: this CPU has {}", names.join(", "))),
        }
    }

    /// Every instruction set of this CPU, slowest first: the registry that tests and benches iterate.
    pub fn available() -> Vec<Isa> {
        #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(unused_mut))]
        let mut list = vec![Isa::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            list.extend(Avx2::new().map(Isa::Avx2));
            list.extend(Avx512::new().map(Isa::Avx512));
            list.extend(Avx512::new().map(Isa::Avx512Bf16));
        }
        #[cfg(target_arch = "aarch64")]
        list.extend(Neon::new().map(Isa::Neon));
        list
    }

    /// The name used by `KERNELS_FORCE_ISA`, `KERNELS_REQUIRE`, tests and benches.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(_) => "avx512bf16",
        }
    }

    /// Runs `op` with this instruction set.
    #[inline]
    pub fn run<O: SimdOp>(self, op: O) -> O::Output {
        match self {
            Isa::Portable(s) => op.eval(s),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(s) => s.run(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(s) => s.run(op),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(s) => s.run(op),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(s) => s.run(op),
        }
    }
}
