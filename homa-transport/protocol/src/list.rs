//! Doubly linked lists through the entries of a [`Slab`]: no memory of their own, and an entry leaves
//! its list without a search.

use slotmap::Key;

use crate::slab::Slab;

/// The ends of a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List<K> {
    first: K,
    last: K,
}

/// An entry's neighbours in a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Links<K> {
    previous: K,
    next: K,
}

/// Where an entry has its links in this list.
type LinksOf<K, V> = fn(&mut V) -> &mut Links<K>;

impl<K: Key> List<K> {
    /// The entry that has been in it for longest.
    pub(crate) fn first(&self) -> Option<K> {
        (!self.first.is_null()).then_some(self.first)
    }

    /// Appends an entry that is in no list of these links.
    pub(crate) fn push_back<V>(&mut self, slab: &mut Slab<K, V>, of: LinksOf<K, V>, key: K) {
        let Some(entry) = slab.get_mut(key) else {
            debug_assert!(false, "{key:?} is not in the slab");
            return;
        };
        *of(entry) = Links {
            previous: self.last,
            next: K::null(),
        };
        match slab.get_mut(self.last) {
            Some(last) => of(last).next = key,
            None => self.first = key,
        }
        self.last = key;
    }

    /// Takes an entry out that is in this list.
    pub(crate) fn remove<V>(&mut self, slab: &mut Slab<K, V>, of: LinksOf<K, V>, key: K) {
        let Some(entry) = slab.get_mut(key) else {
            debug_assert!(false, "{key:?} is not in the slab");
            return;
        };
        let links = std::mem::take(of(entry));
        match slab.get_mut(links.previous) {
            Some(previous) => of(previous).next = links.next,
            None => self.first = links.next,
        }
        match slab.get_mut(links.next) {
            Some(next) => of(next).previous = links.previous,
            None => self.last = links.previous,
        }
    }

    /// Its entries, the oldest first. `of` as above, of a shared entry.
    pub(crate) fn iter<V>(
        &self,
        slab: &Slab<K, V>,
        of: fn(&V) -> &Links<K>,
    ) -> impl Iterator<Item = K> {
        let next = move |key: &K| slab.get(*key).map(|entry| of(entry).next);
        std::iter::successors(self.first(), move |key| {
            next(key).filter(|key| !key.is_null())
        })
    }

    /// The same, collected.
    pub(crate) fn keys<V>(&self, slab: &Slab<K, V>, of: fn(&V) -> &Links<K>) -> Vec<K> {
        self.iter(slab, of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::DefaultKey as CallKey;

    #[test]
    fn entries_leave_from_the_ends_and_from_between() {
        let mut slab = Slab::<CallKey, Links<CallKey>>::new();
        let mut list = List::default();
        let keys: Vec<_> = (0..5).map(|_| slab.insert(Links::default())).collect();
        for key in &keys {
            list.push_back(&mut slab, |links| links, *key);
        }
        let mut left = keys.clone();
        for at in [2, 3, 0, 1, 0] {
            assert_eq!(list.keys(&slab, |links| links), left);
            assert_eq!(list.first(), left.first().copied());
            list.remove(&mut slab, |links| links, left.remove(at));
        }
        assert_eq!(list.first(), None);
        list.push_back(&mut slab, |links| links, keys[4]);
        assert_eq!(list.keys(&slab, |links| links), [keys[4]]);
    }
}
