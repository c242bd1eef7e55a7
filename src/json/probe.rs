//! Looks at sixteen bytes at a time: how many of them, from the left, belong to the run?
//!
//! String bodies, indentation and digits are nearly all of a JSON text, and they come in runs. A probe is plain
//! arithmetic on two 64-bit words, each byte a lane. Only the first byte that stops the run has to be found, so a test
//! may be wrong about lanes above one that really stops: carries and borrows only go up.

/// How many bytes one probe looks at.
pub(super) const WIDTH: usize = 16;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = ONES << 7;

/// The sixteen bytes at `at`, or `None` when fewer are left: the caller then goes byte by byte.
#[inline(always)]
pub(super) fn chunk(text: &[u8], at: usize) -> Option<&[u8; WIDTH]> {
    text.get(at..)?.first_chunk()
}

/// The lane of the lowest bit that `stops` sets, at most [`WIDTH`].
#[inline(always)]
fn first(chunk: &[u8; WIDTH], stops: impl Fn(u64) -> u64) -> usize {
    let bits = u128::from_le_bytes(*chunk);
    let low = stops(bits as u64);
    if low != 0 {
        return low.trailing_zeros() as usize / 8;
    }
    8 + stops((bits >> 64) as u64).trailing_zeros() as usize / 8
}

/// Bytes before the first quote, backslash or control character.
///
/// Flipping bit 1 puts the quote (0x22) right above the control characters, so that both are what is below 0x21.
#[inline(always)]
pub(super) fn plain(chunk: &[u8; WIDTH]) -> usize {
    first(chunk, |word| {
        let low = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
        let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
        (low | backslash) & !word & HIGH
    })
}

/// Bytes before the first that is not a space. The other whitespace is rare in runs.
#[inline(always)]
pub(super) fn spaces(chunk: &[u8; WIDTH]) -> usize {
    first(chunk, |word| word ^ (ONES * u64::from(b' ')))
}

/// Bytes before the first that is not an ASCII digit: digits are 0x30 to 0x39, and still 0x3? with six added.
#[inline(always)]
pub(super) fn digits(chunk: &[u8; WIDTH]) -> usize {
    const ZEROS: u64 = ONES * b'0' as u64;
    first(chunk, |word| ((word ^ ZEROS) | (word.wrapping_add(ONES * 6) ^ ZEROS)) & (ONES * 0xf0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every place of a run of each kind: the probe must stop exactly where the byte-wise answer does.
    #[test]
    fn probes_agree_with_bytes() {
        type Case = (&'static [u8], fn(u8) -> bool, fn(&[u8; WIDTH]) -> usize);
        let cases: [Case; 3] = [
            (b"ax~\x7f\x80\xff\x20!#[]", |b| b >= 0x20 && b != b'"' && b != b'\\', plain),
            (b" ", |b| b == b' ', spaces),
            (b"01589", |b| b.is_ascii_digit(), digits),
        ];
        for (run, belongs, probe) in cases {
            for fill in run {
                for place in 0..WIDTH {
                    for byte in 0..=255 {
                        for after in [*fill, b'"', 0, 0xff, byte, byte ^ 1] {
                            let mut chunk = [*fill; WIDTH];
                            chunk[place] = byte;
                            if place + 1 < WIDTH {
                                chunk[place + 1] = after;
                            }
                            let expected = chunk.iter().position(|b| !belongs(*b)).unwrap_or(WIDTH);
                            assert_eq!(probe(&chunk), expected, "{chunk:?}");
                        }
                    }
                }
            }
        }
    }
}
