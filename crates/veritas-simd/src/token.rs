//! Proofs that the machine has a level.

use crate::Isa;

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $isa:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// The level that a token of this type proves.
            pub const ISA: Isa = $isa;

            /// A token, or `None` where this machine lacks the level.
            pub fn new() -> Option<Self> {
                $isa.is_available().then_some(Self(()))
            }

            /// A token without asking the machine again.
            ///
            /// # Safety
            /// The machine must have the level: [`Isa::is_available`] must be true for [`Self::ISA`].
            #[inline(always)]
            pub unsafe fn assume() -> Self {
                Self(())
            }
        }
    };
}

token! {
    /// Proof of nothing: the portable level needs none, and has a token so that code over levels can be generic.
    PortableToken, Isa::Portable
}
token! {
    /// Proof that the machine executes AVX2, FMA and F16C.
    Avx2Token, Isa::Avx2
}
token! {
    /// Proof that the machine executes AVX-512 F, BW, DQ, VL and VNNI, and all that [`Avx2Token`] proves.
    Avx512Token, Isa::Avx512
}
token! {
    /// Proof that the machine executes Advanced SIMD.
    NeonToken, Isa::Neon
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_exists_exactly_where_the_level_does() {
        assert!(PortableToken::new().is_some());
        assert_eq!(Avx2Token::new().is_some(), Isa::Avx2.is_available());
        assert_eq!(Avx512Token::new().is_some(), Isa::Avx512.is_available());
        assert_eq!(NeonToken::new().is_some(), Isa::Neon.is_available());
    }
}
