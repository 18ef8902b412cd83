//! Caches of strings in parsed form: one that comes again is neither parsed nor allocated again.

use std::cell::RefCell;
use std::hash::Hasher;
use std::thread::LocalKey;

use http::header::{HeaderName, InvalidHeaderName};
use http::uri::PathAndQuery;

use super::name_map::NameHasher;

/// Entries of a cache.
const ENTRIES: usize = 32;

/// A parsed string that can be remembered.
pub(crate) trait Interned: Clone + 'static {
    /// Longer ones are not remembered, in bytes.
    const LEN_MAX: usize;

    /// What was parsed.
    fn as_bytes(&self) -> &[u8];
}

impl Interned for HeaderName {
    const LEN_MAX: usize = 64;

    fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl Interned for PathAndQuery {
    const LEN_MAX: usize = 128;

    fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

/// What a thread remembers, for one way of parsing. A string has a slot by its bytes, until another one
/// takes the slot.
pub(crate) struct Cache<T>([Option<T>; ENTRIES]);

impl<T> Cache<T> {
    pub(crate) const fn new() -> Self {
        Self([const { None }; ENTRIES])
    }
}

/// A cache of the current thread.
pub(crate) type LocalCache<T> = LocalKey<RefCell<Cache<T>>>;

/// The string with these bytes, by `parse` if it is not in the cache. What `parse` returns must not keep
/// a longer buffer alive.
pub(crate) fn intern<T: Interned, E>(
    cache: &'static LocalCache<T>,
    bytes: &[u8],
    parse: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if bytes.len() > T::LEN_MAX {
        return parse();
    }
    let slot = slot(bytes);
    let known = cache.try_with(|cache| {
        let cache = cache.borrow();
        let known = cache.0.get(slot)?.as_ref()?;
        (known.as_bytes() == bytes).then(|| known.clone())
    });
    if let Ok(Some(known)) = known {
        return Ok(known);
    }
    let parsed = parse()?;
    // Fails while a thread ends.
    let _ended = cache.try_with(|cache| {
        if let Some(slot) = cache.borrow_mut().0.get_mut(slot) {
            *slot = Some(parsed.clone());
        }
    });
    Ok(parsed)
}

/// A sender of strings that share a slot has each of them parsed, no more.
fn slot(bytes: &[u8]) -> usize {
    let mut hasher = NameHasher::default();
    hasher.write(bytes);
    usize::try_from(hasher.finish() % ENTRIES as u64).unwrap_or(0)
}

thread_local! {
    static HEADER_NAMES: RefCell<Cache<HeaderName>> = const { RefCell::new(Cache::new()) };
}

/// The header name with these bytes, which must be lower-case.
pub(crate) fn header_name(key: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    intern(&HEADER_NAMES, key, || HeaderName::from_lowercase(key))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;

    use super::*;

    thread_local! {
        static PATHS: RefCell<Cache<PathAndQuery>> = const { RefCell::new(Cache::new()) };
    }

    /// Parses `path`, unless it is "/bad", and counts how often that is done.
    fn path(bytes: &[u8], parsed: &Cell<usize>) -> Result<PathAndQuery, ()> {
        intern(&PATHS, bytes, || {
            parsed.set(parsed.get() + 1);
            let bytes = Bytes::copy_from_slice(bytes);
            let path = PathAndQuery::from_maybe_shared(bytes).map_err(drop)?;
            if path == "/bad" { Err(()) } else { Ok(path) }
        })
    }

    #[test]
    fn a_path_that_comes_again_is_not_parsed_again_and_a_bad_one_is_each_time() {
        let parsed = Cell::new(0);
        for _ in 0..3 {
            assert_eq!(path(b"/a.B/C", &parsed).unwrap(), "/a.B/C");
        }
        assert_eq!(parsed.get(), 1);
        assert!((0..3).all(|_| path(b"/bad", &parsed).is_err()));
        assert_eq!(parsed.get(), 4);
    }

    #[test]
    fn paths_that_share_a_slot_are_told_apart_and_long_ones_are_not_kept() {
        let parsed = Cell::new(0);
        for _ in 0..3 {
            for n in 0..10 * ENTRIES {
                let text = format!("/a.B/Do{n}");
                assert_eq!(path(text.as_bytes(), &parsed).unwrap(), text.as_str());
            }
        }
        let long = format!("/a.B/{}", "c".repeat(PathAndQuery::LEN_MAX));
        let before = parsed.get();
        assert!((0..3).all(|_| path(long.as_bytes(), &parsed).unwrap() == long.as_str()));
        assert_eq!(parsed.get(), before + 3);
    }

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
        let key = [b'n'; HeaderName::LEN_MAX];
        let (first, again) = (header_name(&key).unwrap(), header_name(&key).unwrap());
        assert_eq!(first.as_str().as_ptr(), again.as_str().as_ptr());
        let long = [b'n'; HeaderName::LEN_MAX + 1];
        let (first, again) = (header_name(&long).unwrap(), header_name(&long).unwrap());
        assert_ne!(first.as_str().as_ptr(), again.as_str().as_ptr());
    }
}
