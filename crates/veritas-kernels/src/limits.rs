//! What this machine can do at most, measured now: the yardsticks for speeds.
//!
//! Each figure is the best of a few rounds of a loop that does nothing else, on all threads of a team at once: the
//! level's own dot instructions and fused multiply-add from registers, and reads of a buffer far larger than the caches.
//! A figure below what the processor could do (another program was running) makes shares look better than they are, which
//! is why the rounds are short and the best one counts.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use veritas_mem::AlignedBuf;
use veritas_simd::Isa;

use crate::table::Kernels;
use crate::team::Team;

/// Rounds of a measurement; the best counts.
const ROUNDS: usize = 4;

/// How long each thread works in a round of an arithmetic measurement.
const ROUND_TIME: Duration = Duration::from_millis(100);

/// Iterations between two looks at the clock: some tens of microseconds.
const ITERATIONS: u32 = 10_000;

/// Bytes that a thread reads between two looks at the counter of tasks.
const READ_CHUNK: usize = 1 << 20;

/// Bytes read per second, from a buffer of `bytes` that all threads share out. The figure is the memory's if the buffer is
/// at least four times the last-level cache.
pub fn read_bandwidth(team: &Team, bytes: usize) -> f64 {
    let mut buffer = AlignedBuf::<u64>::zeroed((bytes / 8).max(8));
    // Written by the team, so that the pages exist and lie near the threads.
    team.chunks_mut(&mut buffer, READ_CHUNK / 8, |i, chunk| chunk.fill(i as u64 + 1));
    let n_chunks = buffer.len().div_ceil(READ_CHUNK / 8);
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let sum = AtomicU64::new(0);
        let start = Instant::now();
        team.run(n_chunks, &|chunk, _thread| {
            let first = chunk * (READ_CHUNK / 8);
            let end = buffer.len().min(first + READ_CHUNK / 8);
            sum.fetch_xor(read(&buffer[first..end]), Ordering::Relaxed);
        });
        let seconds = start.elapsed().as_secs_f64();
        black_box(sum.into_inner());
        best = best.max((buffer.len() * 8) as f64 / seconds);
    }
    best
}

/// Bytes read per second in one pass over `bytes`, which the threads share out in stretches. The figure is the memory's
/// if they are at least four times the last-level cache. The loads are the level's widest.
pub fn read_rate(kernels: &Kernels, team: &Team, bytes: &[u8]) -> f64 {
    let read = read_loop(kernels.isa());
    let sum = AtomicU64::new(0);
    let start = Instant::now();
    team.run(bytes.len().div_ceil(READ_CHUNK), &|chunk, _thread| {
        let first = chunk * READ_CHUNK;
        let end = bytes.len().min(first + READ_CHUNK);
        // SAFETY: the loop is of the level of a `Kernels`, which the machine has.
        sum.fetch_xor(unsafe { read(&bytes[first..end]) }, Ordering::Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    black_box(sum.into_inner());
    bytes.len() as f64 / seconds
}

/// A pass over bytes that gives their xor, in some sense. Unsafe to call where the machine lacks its level.
type Reader = unsafe fn(&[u8]) -> u64;

fn read_loop(isa: Isa) -> Reader {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::read_avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::read_avx512,
        _ => read_portable,
    }
}

/// Xor of all words of eight bytes, in chains that the compiler can keep in vectors: bound by the loads.
#[inline(always)]
fn read_portable(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (lines, words) = words.as_chunks::<64>();
    let mut sums = [0u64; 64];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    sums.into_iter().chain(words).chain(rest).fold(0, |all, x| all ^ x)
}

/// Xor of all numbers, in chains that the compiler can keep in vectors: bound by the loads.
fn read(numbers: &[u64]) -> u64 {
    let (lines, rest) = numbers.as_chunks::<32>();
    let mut sums = [0u64; 32];
    for line in lines {
        for (sum, x) in sums.iter_mut().zip(line) {
            *sum ^= x;
        }
    }
    sums.iter().chain(rest).fold(0, |all, x| all ^ x)
}

/// Integer operations per second of 8-bit dot products (a multiplication and an addition count as two), by the
/// instructions of the level: `vpdpbusd` on AVX-512, `vpmaddubsw` + `vpmaddwd` + `vpaddd` on AVX2, scalar code otherwise.
pub fn arithmetic_peak(kernels: &Kernels, team: &Team) -> f64 {
    measure(team, int8_loop(kernels.isa()))
}

/// Floating-point operations per second of f32 fused multiply-adds (each counts as two), by the level's vectors; on the
/// portable level separate multiplications and additions, which is what a processor without the instruction has.
pub fn f32_peak(kernels: &Kernels, team: &Team) -> f64 {
    measure(team, f32_loop(kernels.isa()))
}

/// Floating-point operations per second of products of BF16 numbers that are summed in f32 (a multiplication and an
/// addition count as two): by `vdpbf16ps` where the kernels of BF16 weights use it, otherwise that of [`f32_peak`], as those
/// kernels multiply f32 numbers there.
pub fn bf16_peak(kernels: &Kernels, team: &Team) -> f64 {
    measure(team, bf16_loop(kernels))
}

/// A loop of [`ITERATIONS`] and the operations that it does. Unsafe to call where the machine lacks its level.
type Loop = unsafe fn(u32) -> u64;

fn measure(team: &Team, work: Loop) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let operations = AtomicU64::new(0);
        let start = Instant::now();
        team.run(team.n_threads(), &|_task, _thread| {
            while start.elapsed() < ROUND_TIME {
                // SAFETY: the loop is of the level of a `Kernels`, which the machine has.
                operations.fetch_add(unsafe { work(black_box(ITERATIONS)) }, Ordering::Relaxed);
            }
        });
        best = best.max(operations.into_inner() as f64 / start.elapsed().as_secs_f64());
    }
    best
}

fn int8_loop(isa: Isa) -> Loop {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::int8_avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::int8_avx512,
        _ => int8_portable,
    }
}

fn f32_loop(isa: Isa) -> Loop {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::f32_avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::f32_avx512,
        _ => f32_portable,
    }
}

fn bf16_loop(kernels: &Kernels) -> Loop {
    #[cfg(target_arch = "x86_64")]
    if kernels.reads_pairs() {
        return x86::bf16_avx512;
    }
    f32_loop(kernels.isa())
}

fn int8_portable(iterations: u32) -> u64 {
    let (x, y) = (black_box([3i8; 64]), black_box([5i8; 64]));
    let mut sum = 0i32;
    for _ in 0..iterations {
        let products = x.iter().zip(&y).map(|(&x, &y)| i32::from(x) * i32::from(y));
        sum = black_box(sum.wrapping_add(products.sum::<i32>()));
    }
    u64::from(iterations) * 64 * 2
}

fn f32_portable(iterations: u32) -> u64 {
    let (x, y) = (black_box([0.5f32; 64]), black_box([0.25f32; 64]));
    let mut sums = [1.0f32; 64];
    for _ in 0..iterations {
        for i in 0..64 {
            sums[i] = sums[i] * x[i] + y[i];
        }
    }
    black_box(sums);
    u64::from(iterations) * 64 * 2
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Accumulators of the loops: enough chains to hide the latency of two units, few enough for 16 registers.
    const CHAINS: u64 = 12;

    // The instructions are written out, because a compiler that sees a sum of equal products simplifies it. Each asm block
    // is one instruction a chain on registers: no memory, no stack, no flags.

    #[target_feature(enable = "avx2")]
    pub(super) fn read_avx2(bytes: &[u8]) -> u64 {
        super::read_portable(bytes)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn read_avx512(bytes: &[u8]) -> u64 {
        let (lines, rest) = bytes.as_chunks::<512>();
        let mut sums = [_mm512_setzero_si512(); 8];
        for line in lines {
            for (sum, part) in sums.iter_mut().zip(line.as_chunks::<64>().0) {
                // SAFETY: the part has 64 bytes, and the load needs no alignment.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(part.as_ptr().cast()) });
            }
        }
        let sum = sums.into_iter().reduce(|a, b| _mm512_xor_si512(a, b)).expect("eight sums");
        _mm512_reduce_add_epi64(sum).cast_unsigned() ^ super::read_portable(rest)
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn int8_avx2(iterations: u32) -> u64 {
        let (x, y, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5), _mm256_set1_epi16(1));
        let mut acc = [_mm256_setzero_si256(); CHAINS as usize];
        for _ in 0..iterations {
            for acc in &mut acc {
                // SAFETY: AVX2 on registers alone, which the function requires.
                unsafe {
                    asm!(
                        "vpmaddubsw {t}, {x}, {y}",
                        "vpmaddwd {t}, {t}, {ones}",
                        "vpaddd {acc}, {acc}, {t}",
                        t = out(ymm_reg) _,
                        x = in(ymm_reg) x,
                        y = in(ymm_reg) y,
                        ones = in(ymm_reg) ones,
                        acc = inout(ymm_reg) *acc,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(acc);
        u64::from(iterations) * CHAINS * 32 * 2
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn f32_avx2(iterations: u32) -> u64 {
        let (x, y) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
        let mut acc = [_mm256_setzero_ps(); CHAINS as usize];
        for _ in 0..iterations {
            for acc in &mut acc {
                // SAFETY: FMA on registers alone, which the function requires.
                unsafe {
                    asm!(
                        "vfmadd231ps {acc}, {x}, {y}",
                        x = in(ymm_reg) x,
                        y = in(ymm_reg) y,
                        acc = inout(ymm_reg) *acc,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(acc);
        u64::from(iterations) * CHAINS * 8 * 2
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn int8_avx512(iterations: u32) -> u64 {
        let (x, y) = (_mm512_set1_epi8(3), _mm512_set1_epi8(5));
        let mut acc = [_mm512_setzero_si512(); CHAINS as usize];
        for _ in 0..iterations {
            for acc in &mut acc {
                // SAFETY: AVX-512 VNNI on registers alone, which the function requires.
                unsafe {
                    asm!(
                        "vpdpbusd {acc}, {x}, {y}",
                        x = in(zmm_reg) x,
                        y = in(zmm_reg) y,
                        acc = inout(zmm_reg) *acc,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(acc);
        u64::from(iterations) * CHAINS * 64 * 2
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn f32_avx512(iterations: u32) -> u64 {
        let (x, y) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        let mut acc = [_mm512_setzero_ps(); CHAINS as usize];
        for _ in 0..iterations {
            for acc in &mut acc {
                // SAFETY: AVX-512 F on registers alone, which the function requires.
                unsafe {
                    asm!(
                        "vfmadd231ps {acc}, {x}, {y}",
                        x = in(zmm_reg) x,
                        y = in(zmm_reg) y,
                        acc = inout(zmm_reg) *acc,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(acc);
        u64::from(iterations) * CHAINS * 16 * 2
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn bf16_avx512(iterations: u32) -> u64 {
        // 0.5 and 0.25 as BF16 numbers.
        let (x, y) = (_mm512_set1_epi16(0x3f00), _mm512_set1_epi16(0x3e80));
        let mut acc = [_mm512_setzero_ps(); CHAINS as usize];
        for _ in 0..iterations {
            for acc in &mut acc {
                // SAFETY: AVX512_BF16 on registers alone, which the function requires.
                unsafe {
                    asm!(
                        "vdpbf16ps {acc}, {x}, {y}",
                        x = in(zmm_reg) x,
                        y = in(zmm_reg) y,
                        acc = inout(zmm_reg) *acc,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(acc);
        u64::from(iterations) * CHAINS * 32 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_every_level_are_positive() {
        let team = Team::new(2);
        assert!(read_bandwidth(&team, 3 << 20) > 0.0);
        for isa in Isa::available() {
            let kernels = Kernels::new(isa).expect("an available level");
            assert!(arithmetic_peak(&kernels, &team) > 0.0, "{isa}");
            assert!(read_rate(&kernels, &team, &[1; 12345]) > 0.0, "{isa}");
            assert!(f32_peak(&kernels, &team) > 0.0, "{isa}");
            assert!(bf16_peak(&kernels, &team) > 0.0, "{isa}");
        }
    }
}
