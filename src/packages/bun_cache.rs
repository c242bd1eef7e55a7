//! How Bun writes versions in the names of its cache: a prerelease and a build as hashes.

/// Returns a version as it stands in the name of a cache entry: `3.0.0-684001923c4f8651` for `3.0.0-canary.1`.
#[must_use]
pub fn version_in_name(version: &str) -> String {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let mut name = core.to_owned();
    if let Some(pre) = pre {
        name += &format!("-{:016x}", wyhash(pre.as_bytes()));
    }
    if let Some(build) = build {
        name += &format!("+{:016X}", wyhash(build.as_bytes()));
    }
    name
}

const PRIMES: [u64; 5] =
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3, 0x1d8e_4e27_c47d_124f];

/// The first published wyhash, with seed 0: Bun has kept it for what is on disks, while the hash of its API went on.
fn wyhash(bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(32);
    let mut seed = 0;
    for chunk in &mut chunks {
        let word = |at: usize| little(chunk.get(at..at + 8).unwrap_or_default());
        seed = first(word(0), word(8), seed) ^ second(word(16), word(24), seed);
    }
    let mut mixed = seed;
    for (at, pair) in chunks.remainder().chunks(16).enumerate() {
        let (head, tail) = pair.split_at(pair.len().min(8));
        let (head, tail) = (folded(head), if tail.is_empty() { PRIMES[4] } else { folded(tail) });
        mixed = if at == 0 { first(head, tail, seed) } else { mixed ^ second(head, tail, seed) };
    }
    multiply(mixed ^ bytes.len() as u64, PRIMES[4])
}

/// Up to eight bytes as a number: parts of four, two and one byte, little-endian each, the first one on top.
fn folded(mut bytes: &[u8]) -> u64 {
    let mut value = 0;
    for size in [4, 4, 2, 1] {
        if let Some((part, rest)) = bytes.split_at_checked(size) {
            value = (value << (8 * size)) | little(part);
            bytes = rest;
        }
    }
    value
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    ((product >> 64) ^ product) as u64
}

fn first(a: u64, b: u64, seed: u64) -> u64 {
    multiply(a ^ seed ^ PRIMES[0], b ^ seed ^ PRIMES[1])
}

fn second(a: u64, b: u64, seed: u64) -> u64 {
    multiply(a ^ seed ^ PRIMES[2], b ^ seed ^ PRIMES[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are ones that Bun gave; longer versions are tried with Bun itself in `__test__/packages/placement.test.ts`.
    #[test]
    fn versions_have_the_names_that_bun_gives_them() {
        assert_eq!(version_in_name("4.17.21"), "4.17.21");
        assert_eq!(version_in_name("3.0.0-canary.1"), "3.0.0-684001923c4f8651");
        assert_eq!(version_in_name("1.0.2+build.5"), "1.0.2+9DA996C7494E08F5");
        let both = version_in_name("1.0.0-canary.1+build.5");
        assert_eq!(both, "1.0.0-684001923c4f8651+9DA996C7494E08F5");
    }
}
