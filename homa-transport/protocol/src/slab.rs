//! Tables with generational keys that give their memory back.
//!
//! A `slotmap::SlotMap` keeps the memory of the most entries it ever had, and a walk over it visits all
//! of that. Here slots come in pages: new entries go to the lowest page with room, and a page that is
//! empty is freed, so that memory and walks follow what is there now.

use std::marker::PhantomData;

use slotmap::{Key, KeyData};

/// Slots of a page: a bit each in one word.
const PAGE_SLOTS: usize = 64;
/// Empty pages kept, so that a number of entries that swings about a page's end allocates nothing.
const SPARE_PAGES: usize = 1;

/// Entries by keys of its own making. The key of an entry that is gone never names a later one.
#[derive(Debug)]
pub struct Slab<K, V> {
    pages: Pages<V>,
    /// The least version of a slot of each page, for when the page is made again.
    versions: Vec<u32>,
    /// A bit per page: set if it may have room.
    roomy: Vec<u64>,
    /// No word of `roomy` before this one has a bit set.
    first_roomy: usize,
    len: usize,
    keys: PhantomData<fn() -> K>,
}

/// Values beside the entries of a [`Slab`], by its keys.
#[derive(Debug)]
pub struct SideTable<K, V> {
    pages: Pages<V>,
    keys: PhantomData<fn() -> K>,
}

#[derive(Debug)]
struct Pages<V> {
    pages: Vec<Option<Box<Page<V>>>>,
    /// Those of them without an entry.
    empty: usize,
}

#[derive(Debug)]
struct Page<V> {
    slots: [Slot<V>; PAGE_SLOTS],
    /// A bit per slot with a value.
    occupied: u64,
}

#[derive(Debug)]
struct Slot<V> {
    version: u32,
    value: Option<V>,
}

/// Where a key points.
#[derive(Clone, Copy)]
struct Place {
    page: usize,
    slot: usize,
    version: u32,
}

impl Place {
    /// A key is an index in the lower half and an odd version in the upper one.
    /// Source: slotmap, `KeyData::as_ffi`.
    fn of<K: Key>(key: K) -> Self {
        let [a, b, c, d, version @ ..] = key.data().as_ffi().to_le_bytes();
        let index = u32::from_le_bytes([a, b, c, d]) as usize;
        Self {
            page: index / PAGE_SLOTS,
            slot: index % PAGE_SLOTS,
            version: u32::from_le_bytes(version),
        }
    }

    fn key<K: Key>(self) -> K {
        let index = (self.page * PAGE_SLOTS + self.slot) as u64;
        K::from(KeyData::from_ffi(u64::from(self.version) << 32 | index))
    }
}

impl<V> Pages<V> {
    const fn new() -> Self {
        Self {
            pages: Vec::new(),
            empty: 0,
        }
    }

    #[inline]
    fn get(&self, at: Place) -> Option<&V> {
        let slot = self.pages.get(at.page)?.as_ref()?.slots.get(at.slot)?;
        let known = slot.version == at.version;
        slot.value.as_ref().filter(|_| known)
    }

    #[inline]
    fn get_mut(&mut self, at: Place) -> Option<&mut V> {
        let page = self.pages.get_mut(at.page)?.as_mut()?;
        let slot = page.slots.get_mut(at.slot)?;
        let known = slot.version == at.version;
        slot.value.as_mut().filter(|_| known)
    }

    /// The page of this number, made if it is not there.
    fn page(&mut self, number: usize, version: u32) -> Option<&mut Page<V>> {
        if number >= self.pages.len() {
            self.pages.resize_with(number + 1, || None);
        }
        let entry = self.pages.get_mut(number)?;
        if entry.is_none() {
            self.empty += 1;
        }
        Some(entry.get_or_insert_with(|| Box::new(Page::new(version))))
    }

    /// Puts a value into a slot of `at.page`, which must be there; returns what was in it.
    fn put(&mut self, at: Place, value: V) -> Option<V> {
        let page = self.pages.get_mut(at.page)?.as_mut()?;
        let slot = page.slots.get_mut(at.slot)?;
        self.empty -= usize::from(page.occupied == 0);
        page.occupied |= 1 << at.slot;
        let known = std::mem::replace(&mut slot.version, at.version) == at.version;
        slot.value.replace(value).filter(|_| known)
    }

    /// Takes a value out. If that leaves a page empty which is not to be kept, it is freed, and the
    /// highest version of its slots comes back with the value.
    fn take(&mut self, at: Place) -> Option<(V, Option<u32>)> {
        let entry = self.pages.get_mut(at.page)?;
        let page = entry.as_mut()?;
        let slot = page.slots.get_mut(at.slot)?;
        if slot.version != at.version {
            return None;
        }
        let value = slot.value.take()?;
        page.occupied &= !(1 << at.slot);
        let mut freed = None;
        if page.occupied == 0 {
            self.empty += 1;
            if self.empty > SPARE_PAGES {
                freed = page.slots.iter().map(|slot| slot.version).max();
                *entry = None;
                self.empty -= 1;
            }
        }
        Some((value, freed))
    }

    fn iter(&self) -> impl Iterator<Item = (Place, &V)> {
        let pages = self.pages.iter().enumerate();
        let pages = pages.filter_map(|(number, page)| Some((number, page.as_ref()?)));
        pages.flat_map(|(number, page)| {
            let slots = page.slots.iter().enumerate();
            slots.filter_map(move |(slot, entry)| {
                let place = Place {
                    page: number,
                    slot,
                    version: entry.version,
                };
                Some((place, entry.value.as_ref()?))
            })
        })
    }
}

impl<V> Page<V> {
    fn new(version: u32) -> Self {
        Self {
            slots: std::array::from_fn(|_| Slot {
                version,
                value: None,
            }),
            occupied: 0,
        }
    }
}

impl<K: Key, V> Default for Slab<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key, V> Slab<K, V> {
    /// An empty table.
    pub const fn new() -> Self {
        Self {
            pages: Pages::new(),
            versions: Vec::new(),
            roomy: Vec::new(),
            first_roomy: 0,
            len: 0,
            keys: PhantomData,
        }
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of a key.
    #[inline]
    pub fn get(&self, key: K) -> Option<&V> {
        self.pages.get(Place::of(key))
    }

    /// The entry of a key, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.pages.get_mut(Place::of(key))
    }

    /// Puts an entry into the lowest page with room.
    pub fn insert(&mut self, value: V) -> K {
        let number = self.roomy_page();
        let version = self.versions.get(number).copied().unwrap_or(1);
        let mut at = Place {
            page: number,
            slot: 0,
            version,
        };
        if let Some(page) = self.pages.page(number, version) {
            at.slot = page.occupied.trailing_ones() as usize;
            at.version = page.slots.get(at.slot).map_or(1, |slot| slot.version);
            let occupied = page.occupied | 1 << at.slot;
            self.pages.put(at, value);
            self.len += 1;
            self.set_roomy(number, occupied != u64::MAX);
        }
        at.key()
    }

    /// Takes an entry out. Its key is never valid again.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = Place::of(key);
        // The slot's next entry has another version.
        let (value, freed) = self.pages.take(at)?;
        let next = at.version.wrapping_add(2);
        match freed {
            Some(highest) => {
                if let Some(version) = self.versions.get_mut(at.page) {
                    *version = highest.max(next);
                }
            }
            None => {
                let page = self.pages.pages.get_mut(at.page).and_then(Option::as_mut);
                if let Some(slot) = page.and_then(|page| page.slots.get_mut(at.slot)) {
                    slot.version = next;
                }
            }
        }
        self.len -= 1;
        self.set_roomy(at.page, true);
        Some(value)
    }

    /// All entries, page by page.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.pages.iter().map(|(at, value)| (at.key(), value))
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let pages = self.pages.pages.iter_mut().flatten();
        pages.flat_map(|page| page.slots.iter_mut().filter_map(|slot| slot.value.as_mut()))
    }

    /// Takes all entries out.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        let keys: Vec<K> = self.iter().map(|(key, _)| key).collect();
        keys.into_iter()
            .filter_map(|key| Some((key, self.remove(key)?)))
    }

    /// The lowest page with room, a new one if there is none.
    fn roomy_page(&mut self) -> usize {
        while let Some(word) = self.roomy.get(self.first_roomy) {
            if *word != 0 {
                return self.first_roomy * 64 + word.trailing_zeros() as usize;
            }
            self.first_roomy += 1;
        }
        let number = self.versions.len();
        self.versions.push(1);
        self.set_roomy(number, true);
        number
    }

    fn set_roomy(&mut self, page: usize, roomy: bool) {
        let word = page / 64;
        if word >= self.roomy.len() {
            self.roomy.resize(word + 1, 0);
        }
        let Some(bits) = self.roomy.get_mut(word) else {
            return;
        };
        if roomy {
            *bits |= 1 << (page % 64);
            self.first_roomy = self.first_roomy.min(word);
        } else {
            *bits &= !(1 << (page % 64));
        }
    }
}

impl<K: Key, V> Default for SideTable<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key, V> SideTable<K, V> {
    /// An empty table.
    pub const fn new() -> Self {
        Self {
            pages: Pages::new(),
            keys: PhantomData,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.pages.get(Place::of(key))
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.pages.get_mut(Place::of(key))
    }

    /// Whether a key has a value.
    pub fn contains_key(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key that is in the slab; returns the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = Place::of(key);
        self.pages.page(at.page, 0)?;
        self.pages.put(at, value)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let (value, _) = self.pages.take(Place::of(key))?;
        Some(value)
    }

    /// Takes all values out.
    pub fn drain(&mut self) -> impl Iterator<Item = V> {
        let pages = std::mem::replace(&mut self.pages, Pages::new()).pages;
        let pages = pages.into_iter().flatten();
        pages.flat_map(|page| page.slots.into_iter().filter_map(|slot| slot.value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use slotmap::DefaultKey as CallKey;

    fn pages<K, V>(slab: &Slab<K, V>) -> usize {
        slab.pages.pages.iter().flatten().count()
    }

    #[test]
    fn a_key_finds_its_entry_and_never_a_later_one() {
        let mut slab = Slab::<CallKey, u32>::new();
        let mut model = HashMap::new();
        let mut gone = Vec::new();
        let mut random = 1_u64;
        for step in 0..200_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Swings between empty and thousands of entries, so that pages come and go.
            let grows = (step / 20_000) % 2 == 0;
            if (random >> 33) % 4 < if grows { 3 } else { 1 } {
                let key = slab.insert(step);
                assert_eq!(model.insert(key, step), None, "a key is never made twice");
            } else if let Some(key) = model.keys().next().copied() {
                assert_eq!(slab.remove(key), model.remove(&key));
                gone.push(key);
            }
            assert_eq!(slab.len(), model.len());
        }
        assert!(
            model
                .iter()
                .all(|(key, value)| slab.get(*key) == Some(value))
        );
        assert!(gone.iter().all(|key| slab.get(*key).is_none()));
        assert_eq!(slab.iter().count(), model.len());
    }

    #[test]
    fn memory_follows_the_entries_that_are_there() {
        let mut slab = Slab::<CallKey, [u8; 100]>::new();
        let keys: Vec<_> = (0..100_000).map(|_| slab.insert([1; 100])).collect();
        assert_eq!(pages(&slab), 100_000_usize.div_ceil(PAGE_SLOTS));
        let (kept, gone) = keys.split_at(10);
        for key in gone {
            assert!(slab.remove(*key).is_some());
        }
        assert!(pages(&slab) <= 1 + SPARE_PAGES);
        assert!(kept.iter().all(|key| slab.get(*key).is_some()));
        let again = slab.insert([2; 100]);
        assert!(
            Place::of(again).page <= 1,
            "new entries are put where others are"
        );
    }

    #[test]
    fn a_number_of_entries_about_a_pages_end_keeps_the_page() {
        let mut slab = Slab::<CallKey, u32>::new();
        let _kept: Vec<_> = (0..PAGE_SLOTS).map(|_| slab.insert(0)).collect();
        for _ in 0..100 {
            let key = slab.insert(1);
            slab.remove(key);
            assert_eq!(pages(&slab), 2);
        }
    }

    #[test]
    fn values_beside_a_slab_belong_to_one_key_and_give_their_memory_back() {
        let mut slab = Slab::<CallKey, ()>::new();
        let mut side = SideTable::<CallKey, u32>::new();
        let keys: Vec<_> = (0..1_000).map(|_| slab.insert(())).collect();
        for (value, key) in (0..).zip(&keys) {
            assert_eq!(side.insert(*key, value), None);
        }
        assert_eq!(side.insert(keys[7], 70), Some(7));
        slab.remove(keys[7]);
        let reused = slab.insert(());
        assert_eq!(side.get(reused), None);
        assert_eq!(
            side.insert(reused, 1),
            None,
            "what was left of another is not told"
        );
        assert_eq!(side.get(keys[7]), None);
        for key in &keys {
            side.remove(*key);
        }
        assert_eq!(side.remove(reused), Some(1));
        assert!(side.pages.pages.iter().flatten().count() <= SPARE_PAGES);
    }
}
