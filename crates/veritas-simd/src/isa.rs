//! The levels.

use std::fmt;
use std::str::FromStr;

/// An instruction-set level that kernels are written for.
///
/// Every level computes the same bits; they differ in speed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// What the compiler's baseline of the target offers. Available everywhere.
    Portable,
    /// x86-64 with AVX2, FMA and F16C (Haswell, Zen 1 and later).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI besides all of [`Isa::Avx2`] (Ice Lake, Zen 4 and later).
    Avx512,
    /// AArch64 with Advanced SIMD, which is part of the target's baseline.
    Neon,
}

impl Isa {
    /// Every level, slowest first within an architecture.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Neon];

    /// The fastest level that this machine has.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// The levels that this machine has, slowest first; [`Isa::Portable`] is always the first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this machine can execute the level.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => has_avx512(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[allow(unreachable_patterns)] // Which levels are left depends on the architecture.
            _ => false,
        }
    }

    /// The lower-case name, which [`FromStr`] reads back.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// Whether this machine has AVX512-BF16 (`vdpbf16ps`) besides [`Isa::Avx512`]. It is a bit of its own: Ice Lake
    /// has the level but not the instruction.
    pub fn has_avx512_bf16() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            has_avx512() && std::arch::is_x86_feature_detected!("avx512bf16")
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has_avx2()
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512dq")
        && has!("avx512vl")
        && has!("avx512vnni")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of `portable`, `avx2`, `avx512`, `neon`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set `{found}`: expected portable, avx2, avx512 or neon")]
pub struct ParseIsaError {
    /// The name that was given.
    pub found: String,
}

impl FromStr for Isa {
    type Err = ParseIsaError;

    fn from_str(name: &str) -> Result<Self, ParseIsaError> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| ParseIsaError { found: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_level_is_always_available_and_the_best_one_is_available() {
        assert!(Isa::Portable.is_available());
        assert!(Isa::detect().is_available());
        assert_eq!(Isa::available().next(), Some(Isa::Portable));
    }

    #[test]
    fn names_are_read_back_in_any_case_and_unknown_names_are_errors() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
            assert_eq!(isa.name().to_uppercase().parse(), Ok(isa));
        }
        let error = "sse9".parse::<Isa>().unwrap_err();
        assert_eq!(error.found, "sse9");
    }

    #[test]
    fn a_wider_level_implies_the_narrower_one() {
        if Isa::Avx512.is_available() {
            assert!(Isa::Avx2.is_available());
        }
    }
}
