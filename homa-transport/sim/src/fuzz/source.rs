//! Bytes as a source of decisions.

/// Takes decisions from bytes, in order. Once they are used up, every decision is the first one.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    /// Decisions from these bytes.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// True once all bytes are used up.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A byte; 0 once they are used up.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// A number of 64 bits.
    pub fn word(&mut self) -> u64 {
        self.number(8)
    }

    /// A number of 16 bits.
    pub fn short(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap_or(u16::MAX)
    }

    /// A number of 32 bits; as often as not small or at a limit.
    pub fn long(&mut self) -> u32 {
        match self.byte() % 8 {
            0 => 0,
            1 => u32::MAX,
            2 => u32::MAX - u32::from(self.byte()),
            3 => 1_000_000 - u32::from(self.byte()),
            4 => u32::from(self.byte()),
            5 => u32::from(self.short()),
            6 => u32::from(self.short()) * 16,
            _ => u32::try_from(self.number(4)).unwrap_or(u32::MAX),
        }
    }

    /// A number below `bound`, of up to 24 bits; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bytes = match bound {
            0..=1 => return 0,
            2..=256 => 1,
            257..=65_536 => 2,
            _ => 3,
        };
        usize::try_from(self.number(bytes)).unwrap_or(0) % bound
    }

    /// One of `choices`.
    pub fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        const { assert!(N > 0) };
        choices[self.below(N)]
    }

    /// True in `n` of 256 cases.
    pub fn chance(&mut self, n: u8) -> bool {
        self.byte() >= u8::MAX - n
    }

    /// Up to `len` of the bytes that are left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}
