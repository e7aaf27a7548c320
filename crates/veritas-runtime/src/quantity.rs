//! Numbers for people: counts and sizes in the unit that fits.

/// A number of parameters in the unit that fits.
pub fn short_count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// A size in the unit that fits.
pub fn short_bytes(n: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match n {
        0..KIB => format!("{n} B"),
        KIB..MIB => format!("{:.2} KiB", n as f64 / KIB as f64),
        MIB..GIB => format!("{:.2} MiB", n as f64 / MIB as f64),
        _ => format!("{:.2} GiB", n as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_have_the_unit_that_fits() {
        assert_eq!(short_count(1_235_814_400), "1.24 B");
        assert_eq!(short_count(656_000), "656.0 K");
        assert_eq!(short_bytes(1536), "1.50 KiB");
        assert_eq!(short_bytes(3 << 30), "3.00 GiB");
    }
}
