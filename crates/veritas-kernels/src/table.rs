//! The table of kernels of each instruction-set level.
//!
//! Each operation is written once, generically over [`Simd`](crate::lanes::Simd). This file instantiates it per level in
//! a function that enables the level's instructions, and lists the functions in one static table per level. A
//! [`Kernels`] is a reference to a table whose level the machine has; that is what makes calling through it sound.

use veritas_quant::GgmlType;
use veritas_simd::Isa;

use crate::activations::Activations;
use crate::attention::{AttentionUnit, UnitScratch};
use crate::elementwise::Activation;
use crate::error::Error;
use crate::kv::StoreUnit;
use crate::quant;
use crate::rope::RopeStyle;
use crate::tile::TileWriter;

/// The products of some whole weight rows with all activation rows: `(w, n_rows, cols, activations, tile)`, where `w`
/// holds exactly `n_rows` rows of `cols` weights, the activations are in the format that the type needs, and the tile
/// is `n_rows` wide.
///
/// It is unsafe to call because it may be compiled for instructions that not every machine has: the caller makes sure
/// that the machine has the level of the table that it came from.
pub(crate) type RowsKernel = unsafe fn(&[u8], usize, usize, &Activations, &mut TileWriter<'_>);

/// The float products' register tiles: weight rows × activation rows, and weight rows for one activation row.
macro_rules! float_rows {
    ($level:ident, $ty:expr) => {
        match $ty {
            GgmlType::F32 => Some($level::f32_rows as RowsKernel),
            GgmlType::F16 => Some($level::f16_rows as RowsKernel),
            GgmlType::BF16 => Some($level::bf16_rows as RowsKernel),
            _ => None,
        }
    };
}

/// From one list of operations: the struct of the table, and per level a module with the instantiations and a static.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $body:path as ($($arg:ident: $ty:ty),* $(,)?);)*) => {
        /// The kernels of one level. Every function pointer may be called only where the machine has the level.
        pub(crate) struct Table {
            pub(crate) isa: Isa,
            /// The kernel of a float type.
            pub(crate) float_rows: fn(GgmlType) -> Option<RowsKernel>,
            /// The kernel of a quantised type.
            pub(crate) quant_rows: fn(GgmlType) -> Option<RowsKernel>,
            $($(#[$doc])* pub(crate) $name: unsafe fn($($ty),*),)*
        }

        level!(portable, veritas_simd::PortableToken, [], (2, 2, 4) $(, $name = $body as ($($arg: $ty),*))*);
        #[cfg(target_arch = "x86_64")]
        level!(avx2, veritas_simd::Avx2Token, [target_feature(enable = "avx2,fma,f16c")], (2, 2, 4)
            $(, $name = $body as ($($arg: $ty),*))*);
        #[cfg(target_arch = "x86_64")]
        level!(
            avx512, veritas_simd::Avx512Token,
            [target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")], (4, 5, 4)
            $(, $name = $body as ($($arg: $ty),*))*
        );

        #[cfg(target_arch = "aarch64")]
        level!(neon, veritas_simd::NeonToken, [], (2, 2, 4) $(, $name = $body as ($($arg: $ty),*))*);

        /// The portable level.
        static PORTABLE: Table = Table {
            isa: Isa::Portable,
            float_rows: |ty| float_rows!(portable, ty),
            quant_rows: quant::portable_rows,
            $($name: portable::$name,)*
        };

        /// AVX2, FMA and F16C.
        #[cfg(target_arch = "x86_64")]
        static AVX2: Table = Table {
            isa: Isa::Avx2,
            float_rows: |ty| float_rows!(avx2, ty),
            quant_rows: quant::avx2_rows,
            $($name: avx2::$name,)*
        };

        /// AVX-512.
        #[cfg(target_arch = "x86_64")]
        static AVX512: Table = Table {
            isa: Isa::Avx512,
            float_rows: |ty| float_rows!(avx512, ty),
            quant_rows: quant::avx512_rows,
            $($name: avx512::$name,)*
        };

        /// Advanced SIMD.
        #[cfg(target_arch = "aarch64")]
        static NEON: Table = Table {
            isa: Isa::Neon,
            float_rows: |ty| float_rows!(neon, ty),
            quant_rows: quant::neon_rows,
            $($name: neon::$name,)*
        };
    };
}

/// One level: a module with every operation as a function that enables the level's instructions.
macro_rules! level {
    ($level:ident, $token:ty, $attr:tt, $tile:tt
        $(, $name:ident = $body:path as ($($arg:ident: $ty:ty),*))*) => {
        mod $level {
            use super::*;

            level!(@rows f32_rows, F32, $token, $attr, $tile);
            level!(@rows f16_rows, F16, $token, $attr, $tile);
            level!(@rows bf16_rows, Bf16, $token, $attr, $tile);
            $(level!(@operation $name, $body, $token, $attr, ($($arg: $ty),*));)*
        }
    };
    (@operation $name:ident, $body:path, $token:ty, [$($attr:meta)?], ($($arg:ident: $ty:ty),*)) => {
        $(#[$attr])?
        pub(super) unsafe fn $name($($arg: $ty),*) {
            // SAFETY: the caller makes sure that the machine has the level.
            let token = unsafe { <$token>::assume() };
            $body(token, $($arg),*);
        }
    };
    (@rows $name:ident, $weights:ident, $token:ty, [$($attr:meta)?], ($r:literal, $c:literal, $d:literal)) => {
        $(#[$attr])?
        pub(super) unsafe fn $name(
            w: &[u8],
            n_rows: usize,
            _cols: usize,
            acts: &Activations,
            out: &mut TileWriter<'_>,
        ) {
            // SAFETY: the caller makes sure that the machine has the level.
            let token = unsafe { <$token>::assume() };
            crate::float::rows::<_, crate::float::$weights, $r, $c, $d>(token, w, n_rows, acts, out);
        }
    };
}

tables! {
    rms_norm = crate::norms::rms_norm as (x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    layer_norm = crate::norms::layer_norm
        as (x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
    softmax = crate::norms::softmax as (x: &mut [f32]);
    activate_mul = crate::elementwise::activate_mul
        as (f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]);
    activate = crate::elementwise::activate as (f: Activation, x: &mut [f32]);
    add = crate::elementwise::add as (x: &mut [f32], y: &[f32]);
    add_scaled = crate::elementwise::add_scaled as (x: &mut [f32], y: &[f32], s: f32);
    mul = crate::elementwise::mul as (x: &mut [f32], y: &[f32]);
    scale = crate::elementwise::scale as (x: &mut [f32], s: f32);
    softcap = crate::elementwise::softcap as (x: &mut [f32], cap: f32);
    rope = crate::rope::rope as (style: RopeStyle, x: &mut [f32], cos: &[f32], sin: &[f32]);
    /// The bits of [`veritas_quant::activation::quantize_q8`].
    quantize_q8 = crate::quantise::quantize_q8
        as (x: &[f32], block: usize, q: &mut [i8], scales: &mut [f32], sums: &mut [i16]);
    /// Writes the rows of one kv head into its pages.
    kv_store = crate::kv::store_unit as (unit: &mut StoreUnit<'_>);
    /// One unit of attention.
    attend = crate::attention::attend as (unit: &mut AttentionUnit<'_>, scratch: &mut UnitScratch);
}

/// The kernels of one instruction-set level, which this machine has.
#[derive(Clone, Copy)]
pub struct Kernels {
    table: &'static Table,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("isa", &self.isa()).finish()
    }
}

/// Calls an entry of the table.
macro_rules! call {
    ($self:ident.$name:ident($($arg:expr),*)) => {
        // SAFETY: `Kernels::new` makes sure that the machine has the table's level.
        unsafe { ($self.table.$name)($($arg),*) }
    };
}

impl Kernels {
    /// The kernels of a level.
    ///
    /// # Errors
    /// [`Error::IsaUnavailable`] if this machine lacks it.
    pub fn new(isa: Isa) -> Result<Self, Error> {
        if !isa.is_available() {
            return Err(Error::IsaUnavailable { isa, best: Isa::detect() });
        }
        let table = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &AVX2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &AVX512,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &NEON,
            _ => &PORTABLE,
        };
        Ok(Self { table })
    }

    /// The level.
    pub fn isa(&self) -> Isa {
        self.table.isa
    }

    /// `out = x / sqrt(mean(x²) + eps) · weight`; an empty `weight` is all ones. Rows of any length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "the output's length");
        assert!(weight.is_empty() || weight.len() == x.len(), "the weight's length");
        call!(self.rms_norm(x, weight, eps, out));
    }

    /// `out = (x − mean(x)) / sqrt(variance(x) + eps) · weight + bias`; an empty `weight` is all ones, an empty `bias`
    /// all zeros. The variance is the mean of the squared differences.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "the output's length");
        assert!(weight.is_empty() || weight.len() == x.len(), "the weight's length");
        assert!(bias.is_empty() || bias.len() == x.len(), "the bias's length");
        call!(self.layer_norm(x, weight, bias, eps, out));
    }

    /// `x = exp(x − max) / Σ exp(x − max)`. An empty row stays empty.
    pub fn softmax(&self, x: &mut [f32]) {
        call!(self.softmax(x));
    }

    /// `out = f(gate) · up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn activate_mul(&self, f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == out.len() && up.len() == out.len(), "three rows of one length");
        call!(self.activate_mul(f, gate, up, out));
    }

    /// `x = f(x)`.
    pub fn activate(&self, f: Activation, x: &mut [f32]) {
        call!(self.activate(f, x));
    }

    /// `x = x + y`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "two rows of one length");
        call!(self.add(x, y));
    }

    /// `x = y · s + x`, rounded once.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_scaled(&self, x: &mut [f32], y: &[f32], s: f32) {
        assert_eq!(x.len(), y.len(), "two rows of one length");
        call!(self.add_scaled(x, y, s));
    }

    /// `x = x · y`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn mul(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "two rows of one length");
        call!(self.mul(x, y));
    }

    /// `x = x · s`.
    pub fn scale(&self, x: &mut [f32], s: f32) {
        call!(self.scale(x, s));
    }

    /// `x = cap · tanh(x / cap)`.
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        call!(self.softcap(x, cap));
    }

    /// Rotates the first `2 · cos.len()` values of one head; the rest stays. `cos` and `sin` belong to the position.
    ///
    /// # Panics
    /// If `cos` and `sin` differ in length or `x` is shorter than `2 · cos.len()`.
    pub fn rope(&self, style: RopeStyle, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert_eq!(cos.len(), sin.len(), "as many sines as cosines");
        assert!(x.len() / 2 >= cos.len(), "{} rotated pairs in a head of {}", cos.len(), x.len());
        call!(self.rope(style, x, cos, sin));
    }

    /// Whether the level's products of many quantised rows read them side by side.
    pub(crate) fn reads_columns(&self) -> bool {
        match self.isa() {
            Isa::Avx2 | Isa::Avx512 => true,
            Isa::Neon => quant::has_neon_kernels(),
            _ => false,
        }
    }

    /// Whether the level's products of BF16 weights read pairs of BF16 activations.
    pub(crate) fn reads_pairs(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.isa() == Isa::Avx512 && crate::float::bf16_avx512::is_available();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The kernel of a weight type, or `None`. The machine has its level.
    pub(crate) fn rows_kernel(&self, ty: GgmlType) -> Option<RowsKernel> {
        #[cfg(target_arch = "x86_64")]
        if ty == GgmlType::BF16 && self.reads_pairs() {
            return Some(crate::float::bf16_avx512::rows);
        }
        (self.table.float_rows)(ty).or_else(|| (self.table.quant_rows)(ty))
    }

    pub(crate) fn quantize_q8(
        &self,
        x: &[f32],
        block: usize,
        q: &mut [i8],
        scales: &mut [f32],
        sums: &mut [i16],
    ) {
        call!(self.quantize_q8(x, block, q, scales, sums));
    }

    pub(crate) fn kv_store(&self, unit: &mut StoreUnit<'_>) {
        call!(self.kv_store(unit));
    }

    pub(crate) fn attend(&self, unit: &mut AttentionUnit<'_>, scratch: &mut UnitScratch) {
        call!(self.attend(unit, scratch));
    }
}
