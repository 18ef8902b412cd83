//! Paths of methods that were met lately: one that comes again is not parsed again.

use std::cell::RefCell;
use std::hash::Hasher;
use std::thread::LocalKey;

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::by_name::NameHasher;

/// Longer paths are not remembered, in bytes.
const LEN_MAX: usize = 128;
/// Paths that are remembered.
const PATHS: usize = 32;

/// Paths that a thread remembers, for one way of parsing: each at the place that its bytes give it,
/// until another one takes it.
pub(crate) struct RecentPaths([Option<PathAndQuery>; PATHS]);

impl RecentPaths {
    pub(crate) const fn new() -> Self {
        Self([const { None }; PATHS])
    }
}

/// The path with these bytes, by `parse` if it is not among the recent ones.
pub(crate) fn path<E>(
    recent: &'static LocalKey<RefCell<RecentPaths>>,
    bytes: &[u8],
    parse: impl FnOnce(Bytes) -> Result<PathAndQuery, E>,
) -> Result<PathAndQuery, E> {
    let known = recent.try_with(|recent| {
        let recent = recent.borrow();
        let path = recent.0.get(place(bytes))?.as_ref()?;
        (path.as_str().as_bytes() == bytes).then(|| path.clone())
    });
    if let Ok(Some(path)) = known {
        return Ok(path);
    }
    // Of a copy, so that what is remembered keeps no frame in memory.
    let path = parse(Bytes::copy_from_slice(bytes))?;
    if bytes.len() <= LEN_MAX {
        // Fails while a thread ends.
        let _ended = recent.try_with(|recent| {
            if let Some(place) = recent.borrow_mut().0.get_mut(place(bytes)) {
                *place = Some(path.clone());
            }
        });
    }
    Ok(path)
}

/// Whoever sends paths of one place has them parsed each time, no more.
fn place(path: &[u8]) -> usize {
    let mut hasher = NameHasher::default();
    hasher.write(path);
    usize::try_from(hasher.finish() % PATHS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static RECENT: RefCell<RecentPaths> = const { RefCell::new(RecentPaths::new()) };
    }

    /// Parses `path`, unless it is "/bad", and counts how often that is done.
    fn get(bytes: &[u8], parsed: &Cell<usize>) -> Result<PathAndQuery, ()> {
        path(&RECENT, bytes, |bytes| {
            parsed.set(parsed.get() + 1);
            let path = PathAndQuery::from_maybe_shared(bytes).map_err(drop)?;
            if path == "/bad" { Err(()) } else { Ok(path) }
        })
    }

    #[test]
    fn a_path_that_comes_again_is_not_parsed_again_and_a_bad_one_is_each_time() {
        let parsed = Cell::new(0);
        for _ in 0..3 {
            assert_eq!(get(b"/a.B/C", &parsed).unwrap(), "/a.B/C");
        }
        assert_eq!(parsed.get(), 1);
        assert!((0..3).all(|_| get(b"/bad", &parsed).is_err()));
        assert_eq!(parsed.get(), 4);
    }

    #[test]
    fn paths_that_share_a_place_are_told_apart_and_long_ones_are_not_kept() {
        let parsed = Cell::new(0);
        for _ in 0..3 {
            for n in 0..10 * PATHS {
                let path = format!("/a.B/Do{n}");
                assert_eq!(get(path.as_bytes(), &parsed).unwrap(), path.as_str());
            }
        }
        let long = format!("/a.B/{}", "c".repeat(LEN_MAX));
        let before = parsed.get();
        assert!((0..3).all(|_| get(long.as_bytes(), &parsed).unwrap() == long.as_str()));
        assert_eq!(parsed.get(), before + 3);
    }
}
