//! Numbers that wrap: sequence numbers and credit, both modulo 2^32. Source: RFC 1982.

/// How far `a` is ahead of `b`; negative if it is behind. Numbers are never further apart than 2^31.
pub(super) const fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// How many bytes may still go, of which `limit` may go in all and `sent` have; 0 if more have.
pub(super) fn left(limit: u32, sent: u32) -> u32 {
    u32::try_from(ahead(limit, sent)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_across_the_wrap() {
        for base in [0, 7, u32::MAX / 2, u32::MAX - 3, u32::MAX] {
            for distance in [1, 2, 5, 1 << 30] {
                let further = base.wrapping_add(distance);
                assert!(ahead(further, base) > 0);
                assert!(ahead(base, further) < 0);
                assert_eq!(left(further, base), distance);
                assert_eq!(left(base, further), 0);
            }
            assert_eq!(ahead(base, base), 0);
        }
    }
}
