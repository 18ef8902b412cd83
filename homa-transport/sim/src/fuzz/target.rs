//! Feeds a fuzz target with random bytes, on any toolchain and without a corpus.

use std::fmt::Write as _;
use std::panic::catch_unwind;

use crate::Random;

/// Attempts to shorten an input that shows a defect.
const ATTEMPTS_MAX: usize = 20_000;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// The function: panics if it finds a defect.
    pub run: fn(&[u8]),
    /// Longest input, in bytes.
    pub bytes_max: usize,
}

impl Target {
    /// Inputs that follow from `seed`, without end, as often short as long.
    pub fn inputs(self, seed: u64) -> impl Iterator<Item = Vec<u8>> {
        let mut random = Random::new(seed);
        std::iter::repeat_with(move || {
            let len = match self.bytes_max {
                0..=8 => self.bytes_max,
                _ => self.bytes_max >> random.index(5),
            };
            let words = (0..len.div_ceil(8)).flat_map(|_| random.next().to_be_bytes());
            words.take(len).collect()
        })
    }

    /// Whether the target panics on this input.
    #[must_use]
    pub fn finds(self, input: &[u8]) -> bool {
        catch_unwind(|| (self.run)(input)).is_err()
    }

    /// Runs the first `inputs` inputs of `seed`.
    ///
    /// # Panics
    /// If one shows a defect; the text has the input.
    pub fn run_random(self, inputs: usize, seed: u64) {
        if let Some(input) = self.inputs(seed).take(inputs).find(|i| self.finds(i)) {
            let (name, input) = (self.name, to_hex(&input));
            panic!("the target {name} has found something, repeat it with: --input {input}");
        }
    }

    /// The input without the pieces that a finding does not need. Which defect it shows is not compared.
    #[must_use]
    pub fn shorten(self, mut input: Vec<u8>) -> Vec<u8> {
        let mut attempts = 0;
        let mut piece = input.len().div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            while at < input.len() {
                attempts += 1;
                if attempts > ATTEMPTS_MAX {
                    return input;
                }
                let mut shorter = input.clone();
                shorter.drain(at..(at + piece).min(input.len()));
                if self.finds(&shorter) {
                    input = shorter;
                } else {
                    at += piece;
                }
            }
            piece /= 2;
        }
        input
    }
}

/// As the driver's option `--input` takes it: two hexadecimal digits a byte.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
