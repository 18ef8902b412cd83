//! Names of metadata that were used lately: one that comes again takes no allocation.

use std::cell::RefCell;

use http::header::{HeaderName, InvalidHeaderName};

/// Longer names are not remembered, in bytes.
const LEN_MAX: usize = 64;
/// Names that a thread remembers.
const NAMES: usize = 32;

thread_local! {
    /// Each name at the place that its bytes give it, until another one takes it.
    static RECENT: RefCell<[Option<HeaderName>; NAMES]> = const { RefCell::new([const { None }; NAMES]) };
}

/// The header name with these bytes, which must be lower-case.
pub(crate) fn header_name(key: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    if key.len() > LEN_MAX {
        return HeaderName::from_lowercase(key);
    }
    let known = RECENT.try_with(|recent| {
        let recent = recent.borrow();
        let name = recent.get(place(key))?.as_ref()?;
        (name.as_str().as_bytes() == key).then(|| name.clone())
    });
    if let Ok(Some(name)) = known {
        return Ok(name);
    }
    let name = HeaderName::from_lowercase(key)?;
    // Fails while a thread ends.
    let _ended = RECENT.try_with(|recent| {
        if let Some(place) = recent.borrow_mut().get_mut(place(key)) {
            *place = Some(name.clone());
        }
    });
    Ok(name)
}

/// FNV-1a. Whoever sends colliding names has them allocated, no more.
fn place(key: &[u8]) -> usize {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 16) as usize % NAMES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_they_are_whether_remembered_or_not() {
        for _ in 0..2 {
            for i in 0..1000 {
                let key = format!("key-{i}");
                assert_eq!(header_name(key.as_bytes()).unwrap(), key.as_str());
            }
            for bad in ["", "Upper", "a b", "\u{e4}"] {
                assert!(header_name(bad.as_bytes()).is_err(), "{bad:?}");
            }
        }
        assert_eq!(
            header_name(b"authorization").unwrap(),
            http::header::AUTHORIZATION
        );
    }

    #[test]
    fn a_name_that_comes_again_shares_its_memory_and_a_long_one_does_not() {
        let key = [b'n'; LEN_MAX];
        let (first, again) = (header_name(&key).unwrap(), header_name(&key).unwrap());
        assert_eq!(first.as_str().as_ptr(), again.as_str().as_ptr());
        let long = [b'n'; LEN_MAX + 1];
        let (first, again) = (header_name(&long).unwrap(), header_name(&long).unwrap());
        assert_ne!(first.as_str().as_ptr(), again.as_str().as_ptr());
    }
}
