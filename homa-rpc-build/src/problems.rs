use std::fmt;

/// How many are shown in full.
const SHOWN: usize = 10;

/// All faults of one kind that were found in a run, at least one.
///
/// `Display` shows the first ten, one on a line, and how many more there are.
#[derive(Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    location: String,
    text: String,
}

impl Problem {
    pub(crate) fn new(location: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            text: text.into(),
        }
    }

    /// File, and line and column where they are known, as `file:line:column`.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What is wrong, and what can be done about it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.text)
    }
}

impl Problems {
    /// One fault.
    pub(crate) fn one(location: impl Into<String>, text: impl Into<String>) -> Self {
        Self(vec![Problem::new(location, text)])
    }

    /// The error that `problems` are, if there is any.
    pub(crate) fn none_or<E>(
        problems: Vec<Problem>,
        error: impl FnOnce(Self) -> E,
    ) -> Result<(), E> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(error(Self(problems)))
        }
    }

    /// Every fault, in the order of the files and of their lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(SHOWN).enumerate() {
            let before = if index == 0 { "" } else { "\n" };
            write!(f, "{before}{problem}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more of this kind"),
        }
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(count: usize) -> String {
        let problems = (1..=count).map(|n| Problem::new(format!("a.proto:{n}:1"), "wrong"));
        Problems(problems.collect()).to_string()
    }

    #[test]
    fn ten_are_shown_and_the_others_counted() {
        assert_eq!(shown(1), "a.proto:1:1: wrong");
        assert_eq!(shown(10).lines().count(), 10);
        assert!(shown(10).ends_with("a.proto:10:1: wrong"));
        assert_eq!(shown(45).lines().count(), 11);
        assert!(shown(45).ends_with("\nand 35 more of this kind"));
    }
}
