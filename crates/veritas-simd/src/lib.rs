//! Instruction-set levels: which there are, which this machine has, and proof of it.
//!
//! An [`Isa`] names a level; [`Isa::detect`] finds the best one, [`Isa::is_available`] asks for one. A token such as
//! [`Avx2Token`] can be had only on a machine that has the level, so that whoever holds one may execute its
//! instructions without asking again.
//!
//! Architecture invariant: nothing here computes. The kernels decide what to do at each level.

mod isa;
mod token;

pub use isa::{Isa, ParseIsaError};
pub use token::{Avx2Token, Avx512Token, NeonToken, PortableToken};
